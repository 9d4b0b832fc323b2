"""The feed: every event of every order has a position, and an assigner gives it."""

from alembic import op

revision = "0009"
down_revision = "0008"

# The default is volatile, so that it is set apart from the new column: a column that comes with it rewrites the table.
WRITERS = """
-- The transaction that wrote the event: its own ID, not that of a savepoint in it. Older replicas write it unknowingly.
-- Null: the event is from before there was a feed.
ALTER TABLE order_events ADD COLUMN IF NOT EXISTS xact xid8;
ALTER TABLE order_events ALTER COLUMN xact SET DEFAULT pg_current_xact_id();
CREATE INDEX IF NOT EXISTS order_events_by_xact ON order_events (xact) WHERE xact IS NOT NULL;
"""

FEED = """
-- The feed. It is only ever added to, and only by the assigner (events/assign_sql.py), one round after another.
CREATE TABLE events (
    position bigint PRIMARY KEY CHECK (position > 0),     -- 1, 2, 3, … without a gap
    order_id uuid NOT NULL,
    number   integer NOT NULL,                            -- of an order, they ascend with the position
    type     text NOT NULL,                               -- as in order_events: what the feed is filtered by
    CONSTRAINT event_has_one_position UNIQUE (order_id, number)
);

-- Where the assigner stands: one row. Each round changes its primary key, so that reading the largest one passes by the
-- versions of the row before it, which a long transaction keeps from being cleaned away.
CREATE TABLE events_head (
    position      bigint PRIMARY KEY,                     -- the last one that was given
    seen          pg_snapshot NOT NULL,                   -- every event that is visible in it has its position
    cluster       bigint,                                 -- whose transactions `seen` is about; null: no round yet
    walked_order  uuid,                                   -- a walk along all events is here; null: there is no walk
    walked_number integer,
    CONSTRAINT walk_is_somewhere CHECK ((walked_order IS NULL) = (walked_number IS NULL))
);
INSERT INTO events_head (position, seen) VALUES (0, pg_current_snapshot());
"""


def upgrade() -> None:
    for statement in (WRITERS, FEED):
        op.get_bind().exec_driver_sql(statement)
