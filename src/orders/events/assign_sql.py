"""The assigner: gives each event of each order its position in the feed.

A sequence at the insert would not do: a transaction that takes a number early and commits late leaves a gap, which
readers pass by. So positions are given after the commit, by one assigner at a time. It finds new events by comparing
two snapshots (ADR 27). No clock decides anything.
"""

from typing import NamedTuple

from orders.events.outbox_sql import FILL
from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step

MOST = 50_000
"""Maximum number of events that get their positions in one round: a second's work. A walk finds more than that."""

STRIDE = 10_000
"""Maximum number of events that one round of a walk passes: a fifth of a second's work."""

# Its statements are separate, so that each sees what others committed before it began. The lock is the transaction's.
# A server that loses the last commits when it crashes must not lose positions that readers know.
_LOCK = """
    DECLARE
        head events_head;
        here bigint;
        must_walk boolean;
        given integer := 0;
    BEGIN
        IF NOT pg_try_advisory_xact_lock(hashtext('assign_events')) THEN
            RETURN;
        END IF;
        IF current_setting('synchronous_commit') = 'off' THEN
            PERFORM set_config('synchronous_commit', 'on', true);
        END IF;
        IF has_function_privilege('pg_control_system()', 'execute') THEN
            here := (SELECT system_identifier FROM pg_control_system());
        END IF;
        SELECT * INTO STRICT head FROM events_head ORDER BY position DESC LIMIT 1;
        must_walk := head.cluster IS DISTINCT FROM coalesce(here, 0)
            OR pg_snapshot_xmax(head.seen) > pg_snapshot_xmax(pg_current_snapshot())"""

# Counted, because PostgreSQL would make NOT EXISTS a join: it plans a function without values, expects a third of all
# events here, and would read every event in every round.
_IS_NEW = "(SELECT count(*) FROM events v WHERE v.order_id = e.order_id AND v.number = e.number) = 0"

# New are the events of transactions that ran when `seen` was taken, or began later. One snapshot finds them, and is the
# next `seen`. Numbers of an order ascend, because its events are written under its lock, one commit after the other:
# every snapshot has the first so many of them. Times only sort what came in one round.
_FIND = f"""
        IF NOT must_walk AND head.walked_order IS NULL THEN
            WITH found AS MATERIALIZED (
                (SELECT e.order_id, e.number, e.type, e.at FROM order_events e
                 WHERE e.xact = ANY (ARRAY(SELECT pg_snapshot_xip(head.seen))) AND {_IS_NEW}
                 LIMIT %(most)s::integer + 1)
                UNION ALL
                (SELECT e.order_id, e.number, e.type, e.at FROM order_events e
                 WHERE e.xact >= pg_snapshot_xmax(head.seen) AND {_IS_NEW}
                 ORDER BY e.xact LIMIT %(most)s + 1)),
            sorted AS (
                SELECT order_id, number, type, max(at) OVER (PARTITION BY order_id ORDER BY number) AS since FROM found
                WHERE (SELECT count(*) FROM found) <= %(most)s),
            added AS (
                INSERT INTO events (position, order_id, number, type)
                SELECT head.position + row_number() OVER (ORDER BY since, order_id, number), order_id, number, type
                FROM sorted RETURNING 1),
            counted AS (SELECT (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM found) AS found),
            moved AS (
                UPDATE events_head SET position = head.position + counted.added, seen = pg_current_snapshot()
                FROM counted WHERE position = head.position AND counted.added > 0)
            SELECT added, found > added INTO given, must_walk FROM counted;
        END IF"""

# A walk along all events gives positions to those that have none, and never had one (purge_sql.py). It begins where the
# transactions of `seen` are not those of this server (a new database, or one that was restored elsewhere), or where too
# many events are new. What is committed after it began is found by the snapshot of its beginning, when the walk is
# over.
_BEGIN_WALK = """
        IF must_walk THEN
            UPDATE events_head SET seen = pg_current_snapshot(), cluster = coalesce(here, 0),
                                   walked_order = '00000000-0000-0000-0000-000000000000', walked_number = 0
            WHERE position = head.position RETURNING * INTO STRICT head"""

_WALK = f"""
        ELSIF head.walked_order IS NOT NULL THEN
            WITH passed AS MATERIALIZED (
                SELECT e.order_id, e.number, e.type, e.at, e.xact FROM order_events e
                WHERE (e.order_id, e.number) > (head.walked_order, head.walked_number)
                ORDER BY e.order_id, e.number LIMIT %(stride)s::integer),
            added AS (
                INSERT INTO events (position, order_id, number, type)
                SELECT head.position + row_number() OVER (ORDER BY order_id, number), order_id, number, type
                FROM passed e WHERE {_IS_NEW} AND NOT (
                    e.at <= coalesce(head.forgotten_at, '-infinity')
                    AND (e.xact IS NULL OR e.xact < head.forgotten_xact))
                RETURNING 1),
            counted AS (
                SELECT (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM passed) = %(stride)s AS goes_on),
            last AS (SELECT order_id, number FROM passed ORDER BY order_id DESC, number DESC LIMIT 1)
            UPDATE events_head SET position = head.position + counted.added,
                                   walked_order = CASE WHEN counted.goes_on THEN last.order_id END,
                                   walked_number = CASE WHEN counted.goes_on THEN last.number END
                FROM counted LEFT JOIN last ON true WHERE position = head.position
                RETURNING counted.added INTO STRICT given;
        END IF"""

_TELL = """
        RETURN QUERY SELECT h.position, given, h.walked_order IS NOT NULL FROM events_head h
                     ORDER BY h.position DESC LIMIT 1;
    END"""

ASSIGN = Function(
    "assign_events",
    [Step(ALWAYS, ";\n".join((_LOCK, _FIND, _BEGIN_WALK + ";" + _WALK, FILL, _TELL)))],
    rows='"position" bigint, given integer, is_walking boolean',
)
"""One round. No row: another replica is at it."""


class Assigned(NamedTuple):
    """What a round has done: the last position in the feed, the number of positions that it gave, and whether a walk
    goes on.
    """

    position: int
    given: int
    is_walking: bool


def assign(
    connection: Connection, most: int = MOST, stride: int = STRIDE, *, fills_outbox: bool = False
) -> Assigned | None:
    """Give positions to all events that are committed and have none. None: another replica is at it.

    `fills_outbox`: whether these events pass through the outbox.

    One transaction of one statement. Safe at any time, and to repeat.
    """
    with connection.cursor() as cursor:
        ASSIGN.call(cursor, {"most": most, "stride": stride, "outbox": fills_outbox})
        row = cursor.fetchone()
        return None if row is None else Assigned(*row)
