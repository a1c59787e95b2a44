-- Each content item's name in addresses of its own; kept when its title changes.
ALTER TABLE content ADD COLUMN slug TEXT NOT NULL DEFAULT '';
UPDATE content SET slug = lower(hex(randomblob(8)));
CREATE UNIQUE INDEX content_by_slug ON content (slug);
-- Whether its app may act as a service account where no viewer is there to act for.
ALTER TABLE content ADD COLUMN may_fall_back BOOLEAN NOT NULL DEFAULT FALSE;

-- From the portal's origin to content's: a code that works once, and the sessions it makes. They end with the portal's.
CREATE TABLE handovers (
    code_hash TEXT NOT NULL PRIMARY KEY,
    nonce_hash TEXT NOT NULL,
    session TEXT NOT NULL,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL
);
CREATE INDEX handovers_by_expiry ON handovers (expires_at);
CREATE TABLE content_sessions (
    key_hash TEXT NOT NULL PRIMARY KEY,
    session TEXT NOT NULL,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    created_at BIGINT NOT NULL
);
CREATE INDEX content_sessions_by_session ON content_sessions (session);

-- One-time links are for the first administrator (nobody yet) or for a person who sets a password.
ALTER TABLE setup_links ADD COLUMN person TEXT REFERENCES people (guid) ON DELETE CASCADE;

-- Who somebody is at the sign-in provider: matched by issuer and subject, never by e-mail address.
CREATE TABLE identities (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_by_person ON identities (person);

CREATE TABLE "groups" (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    owner TEXT REFERENCES people (guid) ON DELETE SET NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE group_members (
    group_guid TEXT NOT NULL REFERENCES "groups" (guid) ON DELETE CASCADE,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    -- Set by a claim at sign-in, and taken away by one.
    by_claim BOOLEAN NOT NULL,
    PRIMARY KEY (group_guid, person)
);
CREATE INDEX group_members_by_person ON group_members (person);

-- A list names people or groups: exactly one of the two in each row.
CREATE TABLE content_list (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    person TEXT REFERENCES people (guid) ON DELETE CASCADE,
    group_guid TEXT REFERENCES "groups" (guid) ON DELETE CASCADE,
    role TEXT NOT NULL,
    CHECK ((person IS NULL) <> (group_guid IS NULL)),
    UNIQUE (content, person),
    UNIQUE (content, group_guid)
);
INSERT INTO content_list (number, content, person, role) SELECT number, content, principal, role FROM content_permissions;
DROP TABLE content_permissions;

-- Which publishers may pick an integration: everyone, listed, nobody.
ALTER TABLE integrations ADD COLUMN availability TEXT NOT NULL DEFAULT 'everyone';
-- Whether the account at the provider must be the person here: off, warn, require.
ALTER TABLE integrations ADD COLUMN identity_check TEXT NOT NULL DEFAULT 'warn';
CREATE TABLE integration_list (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    integration TEXT NOT NULL REFERENCES integrations (guid) ON DELETE CASCADE,
    person TEXT REFERENCES people (guid) ON DELETE CASCADE,
    group_guid TEXT REFERENCES "groups" (guid) ON DELETE CASCADE,
    CHECK ((person IS NULL) <> (group_guid IS NULL)),
    UNIQUE (integration, person),
    UNIQUE (integration, group_guid)
);

-- The record is a chain: each line holds the hash of the one before. Lines from before it was one have none.
ALTER TABLE audit ADD COLUMN outcome TEXT NOT NULL DEFAULT 'done';
ALTER TABLE audit ADD COLUMN hash TEXT NOT NULL DEFAULT '';
CREATE TABLE audit_head (
    number BIGINT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL
);

-- Exchanges, counted by the hour. Without references: the count outlives what it counts.
CREATE TABLE exchange_hours (
    hour BIGINT NOT NULL,
    person TEXT NOT NULL,
    content TEXT NOT NULL,
    integration TEXT NOT NULL,
    exchanges BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (hour, person, content, integration)
);
CREATE INDEX exchange_hours_by_last ON exchange_hours (last_at);

-- The sealed token that a sign-in at the organisation left, for the life of its session.
CREATE TABLE sign_in_grants (
    session TEXT NOT NULL PRIMARY KEY,
    refresh_token TEXT NOT NULL
);
