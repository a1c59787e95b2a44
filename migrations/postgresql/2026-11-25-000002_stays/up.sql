-- When a viewer was last at a process of an item (a request, or an open socket), and when their token was last used by it; 0 for
-- never. An item with one process has an empty text here. Without references: written often, purged by age. `presences` goes in a
-- later release: until then it is written, too, and read for those whom only a node of the version before has seen.
CREATE TABLE stays (
    content TEXT NOT NULL,
    process TEXT NOT NULL,
    person TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (content, process, person)
);
CREATE INDEX stays_used ON stays (used_at);
