-- The version of Python that an item's app runs with here.
ALTER TABLE content ADD COLUMN python TEXT;
