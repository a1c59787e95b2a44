-- A block whose records about a deleted person carry a pseudonym: a seal over its own seal and the records
-- as they are now.
ALTER TABLE audit_blocks ADD COLUMN reseal TEXT;

-- Deleted people whose names are taken out of the audit log: the names, as JSON. What other nodes or a
-- request to a provider still write is caught until `until`.
CREATE TABLE erasures (
    person TEXT NOT NULL PRIMARY KEY,
    names TEXT NOT NULL,
    until BIGINT NOT NULL
);
