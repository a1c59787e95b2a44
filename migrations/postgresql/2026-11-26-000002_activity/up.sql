-- What is counted by the hour, item and integration (`src/domain/activity.rs`), beside the exchanges of
-- each person. No foreign keys: counts outlive what they name. An empty text: about none.
CREATE TABLE activity_hours (
    hour BIGINT NOT NULL,
    kind TEXT NOT NULL,
    content TEXT NOT NULL,
    integration TEXT NOT NULL,
    times BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (hour, kind, content, integration)
);
CREATE INDEX activity_hours_by_content ON activity_hours (content, hour);
CREATE INDEX activity_hours_by_integration ON activity_hours (integration, hour);

-- A paused integration hands out no tokens and gets no new consents; everything is kept.
ALTER TABLE integrations ADD COLUMN paused_at BIGINT;

-- The reader's time zone, by its name in the IANA database; NULL for UTC.
ALTER TABLE people ADD COLUMN time_zone TEXT;

-- The browser and system of a session, in words.
ALTER TABLE sessions ADD COLUMN client TEXT;

-- People who ask to be put on the list of an item.
CREATE TABLE access_requests (
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    PRIMARY KEY (content, person)
);
CREATE INDEX access_requests_by_person ON access_requests (person);
