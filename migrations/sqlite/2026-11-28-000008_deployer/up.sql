-- The role with which a deploy was ordered: that of the API key, if it was less than the person's.
ALTER TABLE tasks ADD COLUMN role TEXT NOT NULL DEFAULT 'publisher';
