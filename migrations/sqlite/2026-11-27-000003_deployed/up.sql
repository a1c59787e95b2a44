-- Content that was deployed here. The archives are files below the data folder (`src/runner/files.rs`).
CREATE TABLE bundles (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    created_by TEXT REFERENCES people (guid) ON DELETE SET NULL,
    size BIGINT NOT NULL,
    app_mode TEXT NOT NULL,
    python TEXT,
    source TEXT NOT NULL
);
CREATE INDEX bundles_by_content ON bundles (content, number);

-- The bundle that viewers get; NULL for an app that runs elsewhere.
ALTER TABLE content ADD COLUMN bundle BIGINT;
-- Limits of the item's processes, as JSON.
ALTER TABLE content ADD COLUMN running TEXT NOT NULL DEFAULT '{}';

-- Variables that an item's processes get. Write-only: the values are sealed.
CREATE TABLE environment (
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (content, name)
);

-- Deploys. One without `finished_at` is carried out, also after a restart of the portal.
CREATE TABLE tasks (
    guid TEXT NOT NULL PRIMARY KEY,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    bundle BIGINT NOT NULL,
    created_by TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    activate BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    error TEXT
);
CREATE INDEX tasks_by_content ON tasks (content, created_at);
CREATE INDEX tasks_by_end ON tasks (finished_at);
