-- What content gets besides the token, such as the address of its API: a JSON object of texts.
ALTER TABLE connections ADD COLUMN extra_fields TEXT NOT NULL DEFAULT '{}';

-- What the last check of an integration found, as JSON.
ALTER TABLE integrations ADD COLUMN last_check TEXT;

-- The item may use this service account beside an integration that acts for viewers at the same service.
ALTER TABLE associations ADD COLUMN beside_viewers BOOLEAN NOT NULL DEFAULT FALSE;

-- A test sign-in: its tokens are looked at and not stored.
ALTER TABLE attempts ADD COLUMN is_test BOOLEAN NOT NULL DEFAULT FALSE;
