-- Grows with every write that can change a decision: caches of every process know by it that they are old.
CREATE TABLE epoch (
    id BIGINT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL
);
INSERT INTO epoch (id, number) VALUES (1, 1);

-- Who does something that only one process may do at a time. Abandoned when `beat` stands still for the lease's life, by the
-- clock of whoever looks: clocks of machines differ.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    node TEXT NOT NULL,
    generation BIGINT NOT NULL,
    beat BIGINT NOT NULL,
    taken_at BIGINT NOT NULL,
    until BIGINT NOT NULL
);
-- Written before a refresh is sent, deleted with its outcome: what is left over may have reached the provider.
CREATE TABLE refresh_attempts (
    connection TEXT NOT NULL PRIMARY KEY REFERENCES connections (guid) ON DELETE CASCADE,
    generation BIGINT NOT NULL,
    owner TEXT NOT NULL,
    started_at BIGINT NOT NULL
);
ALTER TABLE connections ADD COLUMN used_at BIGINT;
CREATE INDEX connections_by_expiry ON connections (access_expires_at);
CREATE INDEX connections_by_use ON connections (used_at);

-- The secret before the current one: a fall-back until the current one has worked once.
ALTER TABLE integrations ADD COLUMN previous_client_secret TEXT;
-- The days before the secret's end at which administrators were warned last.
ALTER TABLE integrations ADD COLUMN secret_warned BIGINT;

-- Providers to be told that a connection ended. Without references: the row outlives what it tells of.
CREATE TABLE revocations (
    guid TEXT NOT NULL PRIMARY KEY,
    person TEXT NOT NULL,
    person_name TEXT NOT NULL,
    integration TEXT NOT NULL,
    integration_name TEXT NOT NULL,
    provider TEXT NOT NULL,
    account TEXT,
    correlation TEXT NOT NULL,
    -- Sealed: the token and the client that may revoke it; gone once nothing more is tried.
    request TEXT,
    state TEXT NOT NULL,
    tries BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    told_at BIGINT
);
CREATE INDEX revocations_by_next ON revocations (state, next_at);
CREATE INDEX revocations_by_person ON revocations (person);

-- Wrong passwords lately, by name and address.
CREATE TABLE sign_in_tries (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    who TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX sign_in_tries_by_who ON sign_in_tries (who, at);

-- Session tokens past their hour whose socket or stream is still open, somewhere.
CREATE TABLE held_tokens (
    token_hash TEXT NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL
);

-- Secrets between the request that makes them and the page that shows them. Sealed, for minutes.
CREATE TABLE shown_once (
    name_hash TEXT NOT NULL PRIMARY KEY,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    shown TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Processes that serve, with the keys they hold.
CREATE TABLE nodes (
    node TEXT NOT NULL PRIMARY KEY,
    version TEXT NOT NULL,
    keys TEXT NOT NULL,
    seen_at BIGINT NOT NULL
);
