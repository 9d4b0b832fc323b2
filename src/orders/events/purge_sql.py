"""Deletes old events from the feed, from its beginning on. The orders' histories keep them for good."""

from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step

PURGED = 1_000
"""Maximum number of events that are deleted at once: a moment's work."""

# Under the assigner's lock, because both write the head. A walk must not give new positions to events that were in the
# feed once: those are older than `forgotten_at`, and were committed before `forgotten_xact`. Every transaction below it
# had ended in `seen`, so each of its events had a position then. There is no walk now, so all older ones had theirs.
PURGE = Function(
    "purge_feed",
    [
        Step(
            ALWAYS,
            """
            DECLARE
                head events_head;
                up_to bigint;
                latest timestamptz;
                deleted integer;
            BEGIN
                IF NOT pg_try_advisory_xact_lock(hashtext('assign_events')) THEN
                    RETURN;
                END IF;
                SELECT * INTO STRICT head FROM events_head ORDER BY position DESC LIMIT 1;
                IF head.walked_order IS NOT NULL OR head.cluster IS NULL THEN
                    RETURN QUERY SELECT 0;
                    RETURN;
                END IF;
                up_to := least(head.forgotten + %(most)s::integer, head.position,
                               (SELECT min(position) FROM webhooks), (SELECT min(position) FROM relays));
                up_to := coalesce((
                    SELECT v.position - 1 FROM events v
                    JOIN order_events e ON e.order_id = v.order_id AND e.number = v.number
                    WHERE v.position > head.forgotten AND v.position <= up_to
                      AND e.at >= now() - %(days)s::float * interval '1 day'
                    ORDER BY v.position LIMIT 1), up_to);
                latest := (SELECT max(e.at) FROM events v
                           JOIN order_events e ON e.order_id = v.order_id AND e.number = v.number
                           WHERE v.position > head.forgotten AND v.position <= up_to);
                DELETE FROM events WHERE position > head.forgotten AND position <= up_to;
                GET DIAGNOSTICS deleted = ROW_COUNT;
                IF deleted > 0 THEN
                    UPDATE events_head
                    SET forgotten = up_to, forgotten_at = greatest(forgotten_at, latest),
                        forgotten_xact = greatest(forgotten_xact, pg_snapshot_xmin(head.seen))
                    WHERE position = head.position;
                END IF;
                RETURN QUERY SELECT deleted;
            END""",
        )
    ],
    rows="deleted integer",
)
"""Its row is the number of events that it deleted. No row: the assigner has its lock."""


def purge_feed(connection: Connection, keep_days: float, most: int = PURGED) -> bool:
    """Delete some events that happened more than `keep_days` ago, from the beginning of the feed up to the first that
    is younger, or that a webhook or a relay has not passed. Returns whether there may be more.

    One transaction of one statement. Safe at any time.
    """
    with connection.cursor() as cursor:
        PURGE.call(cursor, {"most": most, "days": keep_days})
        row = cursor.fetchone()
        return row is None or row[0] == most
