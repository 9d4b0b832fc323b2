"""API keys, the audit of who did what, and the channels that orders come through."""

from alembic import op

revision = "0008"
down_revision = "0007"

KEYS = """
CREATE TABLE access_keys (
    id          text PRIMARY KEY CHECK (id ~ '^[0-9A-Za-z]{8}$'),
    family      text NOT NULL,                            -- the first key of a chain of rotations: one principal
    name        text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 60),
    digest      bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),  -- SHA-256 of the whole key
    scopes      text[] NOT NULL CHECK (cardinality(scopes) > 0),
    channel     text CHECK (channel ~ '^[a-z0-9_-]{1,64}$'),  -- null: orders of every channel
    rate        integer CHECK (rate > 0),                 -- requests per second; null: the setting
    expires_at  timestamptz,
    replaced_by text REFERENCES access_keys,
    revoked_at  timestamptz,
    used_at     timestamptz,                              -- to the minute
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text NOT NULL
);
"""

AUDIT = """
-- Who did what that no order's history tells. Only ever added to.
CREATE TABLE audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    address    inet,                                      -- the client's; null: the command line
    action     text NOT NULL,                             -- like key_created
    subject    text,                                      -- what it was done to, like a key's ID
    before     jsonb,
    after      jsonb,
    request_id text
);
CREATE INDEX audit_by_action ON audit (action, id);
CREATE INDEX audit_by_actor ON audit (actor, id);
CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_is_kept',
        MESSAGE = 'the audit is only ever added to';
END $$;
CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_kept();
"""

CHANNELS = """
-- The column is new, so NOT VALID spares a look at every row.
ALTER TABLE orders
    ADD COLUMN channel text,                              -- where the order came through, like web; null: not said
    ADD CONSTRAINT channel_is_short CHECK (channel ~ '^[a-z0-9_-]{1,64}$') NOT VALID;
CREATE INDEX orders_by_channel ON orders (channel, id) WHERE channel IS NOT NULL;
"""


def upgrade() -> None:
    for statement in (KEYS, AUDIT, CHANNELS):
        op.get_bind().exec_driver_sql(statement)
