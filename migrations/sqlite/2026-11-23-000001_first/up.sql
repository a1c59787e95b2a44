-- Times are milliseconds since 1970 in UTC. Sealed columns hold `v1.<key id>.<ciphertext>`.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE people (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    username TEXT NOT NULL,
    username_key TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    first_name TEXT NOT NULL,
    last_name TEXT NOT NULL,
    role TEXT NOT NULL,
    password_hash TEXT,
    locked BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    active_at BIGINT
);

CREATE TABLE setup_links (
    token_hash TEXT NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

CREATE TABLE sessions (
    key_hash TEXT NOT NULL PRIMARY KEY,
    guid TEXT,
    person TEXT REFERENCES people (guid) ON DELETE CASCADE,
    state TEXT NOT NULL,
    address TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_guid ON sessions (guid);
CREATE INDEX sessions_by_person ON sessions (person);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE integrations (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    name TEXT,
    description TEXT,
    template TEXT NOT NULL,
    auth_type TEXT NOT NULL,
    config TEXT NOT NULL,
    client_secret TEXT,
    secret_set_at BIGINT,
    secret_set_by TEXT,
    secret_expires_at BIGINT,
    secret_state TEXT NOT NULL,
    secret_state_at BIGINT,
    secret_cause TEXT,
    era BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE content (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    title TEXT,
    description TEXT NOT NULL,
    owner TEXT NOT NULL REFERENCES people (guid),
    access TEXT NOT NULL,
    app_mode TEXT NOT NULL,
    upstream TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (owner, name)
);

CREATE TABLE api_keys (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    key_hash TEXT NOT NULL UNIQUE,
    content TEXT REFERENCES content (guid) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    active_at BIGINT,
    expires_at BIGINT
);
CREATE INDEX api_keys_by_person ON api_keys (person);

CREATE TABLE content_permissions (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    principal TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    role TEXT NOT NULL,
    UNIQUE (content, principal)
);

CREATE TABLE associations (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    integration TEXT NOT NULL REFERENCES integrations (guid) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    UNIQUE (content, integration)
);
CREATE INDEX associations_by_integration ON associations (integration);

CREATE TABLE connections (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    integration TEXT NOT NULL REFERENCES integrations (guid) ON DELETE CASCADE,
    state TEXT NOT NULL,
    cause TEXT,
    state_at BIGINT NOT NULL,
    account_label TEXT,
    account_subject TEXT,
    account_tenant TEXT,
    scopes TEXT NOT NULL,
    access_token TEXT,
    access_expires_at BIGINT,
    refresh_token TEXT,
    lapses_at BIGINT,
    generation BIGINT NOT NULL,
    connected_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (person, integration)
);
CREATE INDEX connections_by_integration ON connections (integration);

CREATE TABLE consents (
    guid TEXT NOT NULL PRIMARY KEY,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    integration TEXT NOT NULL REFERENCES integrations (guid) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    uses BIGINT NOT NULL,
    UNIQUE (person, content, integration)
);
CREATE INDEX consents_by_content ON consents (content);
CREATE INDEX consents_by_integration ON consents (integration);

CREATE TABLE attempts (
    guid TEXT NOT NULL PRIMARY KEY,
    state_hash TEXT NOT NULL UNIQUE,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    session TEXT NOT NULL,
    integration TEXT NOT NULL REFERENCES integrations (guid) ON DELETE CASCADE,
    era BIGINT NOT NULL,
    content TEXT REFERENCES content (guid) ON DELETE CASCADE,
    return_path TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    verifier TEXT,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX attempts_by_expiry ON attempts (expires_at);

CREATE TABLE audit (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at BIGINT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT,
    actor_name TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    address TEXT NOT NULL,
    correlation TEXT NOT NULL
);
CREATE INDEX audit_by_action ON audit (action, number);
