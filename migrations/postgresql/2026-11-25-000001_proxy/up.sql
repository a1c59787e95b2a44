-- How the portal carries an item: its processes, limits, prefix, certificates; a JSON object.
ALTER TABLE content ADD COLUMN proxying TEXT NOT NULL DEFAULT '{}';

-- When a viewer was last at an item: a request, or an open socket. Without references: written often, purged by age.
CREATE TABLE presences (
    content TEXT NOT NULL,
    person TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (content, person)
);
-- Tokens of viewers that an item exchanged while their viewers were elsewhere.
CREATE TABLE leaks (
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    times BIGINT NOT NULL,
    PRIMARY KEY (content, person)
);
-- Which viewer an app's own session belongs to, where the app takes a session up again by its id alone (Streamlit).
CREATE TABLE app_sessions (
    id_hash TEXT NOT NULL PRIMARY KEY,
    content TEXT NOT NULL,
    person TEXT NOT NULL,
    seen_at BIGINT NOT NULL
);
