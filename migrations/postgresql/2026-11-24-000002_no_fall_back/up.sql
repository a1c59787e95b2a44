-- Content acts for its viewer or not at all: there is no service account to fall back to.
ALTER TABLE content DROP COLUMN may_fall_back;
