"""Relays to brokers, the outbox that Debezium reads, and what the feed no longer has."""

from alembic import op

revision = "0011"
down_revision = "0010"

RELAYS = """
-- A relay is a position in the feed: the broker has acknowledged every event up to there.
CREATE TABLE relays (
    name        text PRIMARY KEY CHECK (name ~ '^[a-z0-9_-]{1,60}$'),
    url_hash    text NOT NULL,                            -- of the broker's address without user and password
    position    bigint NOT NULL CHECK (position >= 0),
    holder      uuid,                                     -- the replica that relays; null: none
    lease_until timestamptz,                              -- until then no other replica does
    error       text CHECK (char_length(error) <= 300),   -- why the broker is away; null: it is not
    at          timestamptz NOT NULL DEFAULT now(),       -- when the position or the error was written
    CONSTRAINT held_until_some_time CHECK ((holder IS NULL) = (lease_until IS NULL))
) WITH (fillfactor = 50);
"""

OUTBOX = """
-- What Debezium's outbox event router reads in the write-ahead log. The assigner writes rows and deletes them in the
-- same transaction, so that the table is always empty (events/assign_sql.py). Without ORDERS_OUTBOX nothing writes it.
CREATE TABLE outbox (
    id            uuid PRIMARY KEY,                       -- always the same for the same event
    aggregatetype text NOT NULL,
    aggregateid   text NOT NULL,                          -- the order
    type          text NOT NULL,
    payload       jsonb NOT NULL,                         -- as a webhook is sent it, without the order
    position      bigint NOT NULL,
    at            timestamptz NOT NULL
);
"""

KEPT = """
-- Events up to here are not in the feed any more (events/purge_sql.py). The two others tell a walk which events were.
ALTER TABLE events_head ADD COLUMN forgotten bigint NOT NULL DEFAULT 0;
ALTER TABLE events_head ADD COLUMN forgotten_at timestamptz;
ALTER TABLE events_head ADD COLUMN forgotten_xact xid8;
"""


def upgrade() -> None:
    for statement in (RELAYS, OUTBOX, KEPT):
        op.get_bind().exec_driver_sql(statement)
