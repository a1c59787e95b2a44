-- What people are told by mail and webhooks (`src/domain/notice.rs`).
CREATE TABLE notices (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    -- Whom it is for; NULL: administrators.
    person TEXT REFERENCES people (guid) ON DELETE CASCADE,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    -- The page of the portal that helps.
    path TEXT NOT NULL,
    -- While a notice with this text is kept, no second one with it is made.
    once TEXT UNIQUE,
    -- Whether its deliveries are made.
    spread BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX notices_by_time ON notices (at);
CREATE INDEX notices_to_spread ON notices (number) WHERE NOT spread;

-- Which kinds are mailed. Without a row: as `Kind::is_mailed_by_default` says.
CREATE TABLE notice_rules (
    kind TEXT NOT NULL PRIMARY KEY,
    mailed BOOLEAN NOT NULL,
    -- Mail addresses beside those of the administrators, separated by blanks.
    addresses TEXT NOT NULL
);

CREATE TABLE webhooks (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    -- Sealed: many addresses hold a secret.
    url TEXT NOT NULL,
    -- What pages show of it.
    host TEXT NOT NULL,
    -- Sealed: the key of its signatures.
    secret TEXT NOT NULL,
    -- Kinds of notices, separated by blanks.
    kinds TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- One notice on its way to one receiver: a webhook, or a mail address.
CREATE TABLE deliveries (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    notice BIGINT NOT NULL REFERENCES notices (number) ON DELETE CASCADE,
    webhook TEXT REFERENCES webhooks (guid) ON DELETE CASCADE,
    address TEXT,
    state TEXT NOT NULL,
    tries BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    ended_at BIGINT,
    -- What the last try met, in words.
    error TEXT,
    CHECK ((webhook IS NULL) <> (address IS NULL))
);
CREATE INDEX deliveries_by_next ON deliveries (next_at) WHERE state = 'waiting';
CREATE INDEX deliveries_by_notice ON deliveries (notice);
CREATE INDEX deliveries_by_address ON deliveries (address);
CREATE INDEX deliveries_by_webhook ON deliveries (webhook);

-- Browsers and systems that a person signed in with, in words.
CREATE TABLE known_devices (
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    client TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (person, client)
);
CREATE INDEX known_devices_by_use ON known_devices (seen_at);

-- The person wants no mail.
ALTER TABLE people ADD COLUMN mail_off BOOLEAN NOT NULL DEFAULT FALSE;
