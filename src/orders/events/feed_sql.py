"""Reading the feed: its events after a position, and where it ends."""

from typing import NamedTuple

from orders.events.wanted import PREFIX, Wanted
from orders.order.document_sql import TIME
from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step
from orders.principal import Seer

WALK = 10_000
"""Maximum number of positions that one page passes. It bounds the search for rare events."""

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Maximum size of the events of one page: it bounds the memory for a client that does not read them."""

# A private note stays with those who may read it, and so do the notes and names of the staff.
_PRIVATE = """CASE WHEN %(sees_private)s::boolean THEN {0}
                      ELSE jsonb_set({0}, '{{notes,private}}', 'null', false) END"""

_EVENT = f"""json_build_object(
        'position', v.position, 'id', v.order_id || '-' || v.number, 'type', '{PREFIX}' || v.type,
        'order_id', v.order_id, 'number', v.number, 'customer_id', o.customer_id, 'channel', o.channel,
        'at', {TIME.format("e.at")}, 'actor', CASE WHEN %(sees_private)s THEN e.actor ELSE 'shop' END,
        'reason', e.reason, 'note', CASE WHEN %(sees_private)s THEN e.note END, 'request_id', e.request_id,
        'before', {_PRIVATE.format("e.before")}, 'after', {_PRIVATE.format("e.after")}, 'details', e.details)"""
"""SQL for an event as JSON of the wire."""

# A digest, because the event may be one that the reader must not see.
_MARK = """(SELECT left(encode(sha256(convert_to(order_id || '-' || number, 'UTF8')), 'hex'), 8)
                                 FROM events WHERE position = {})"""
"""SQL for the mark of the event at a position: it tells whether another event is there than before."""

# OFFSET 0 makes PostgreSQL take the positions one by one: it plans a function without values, and would join whole
# tables. It takes no more than fit.
FEED = Function(
    "feed",
    [
        Step(
            ALWAYS,
            f"""
            DECLARE
                found record;
                last bigint;
                head bigint := (SELECT position FROM events_head ORDER BY position DESC LIMIT 1);
                forgotten bigint := (SELECT forgotten FROM events_head ORDER BY position DESC LIMIT 1);
                reached bigint := CASE WHEN %(after)s::bigint < head THEN least(head, %(after)s + {WALK}) ELSE head END;
                given integer := 0;
                so_far bigint := 0;
            BEGIN
                FOR found IN
                    SELECT v.position, e.event
                    FROM (SELECT * FROM events
                          WHERE position > %(after)s AND position <= reached
                            AND (%(types)s::text[] IS NULL OR type = ANY (%(types)s))
                            AND (%(order_id)s::uuid IS NULL OR order_id = %(order_id)s)
                          ORDER BY position) v
                    CROSS JOIN LATERAL (
                        SELECT o.customer_id, o.channel FROM orders o
                        WHERE o.id = v.order_id
                          AND (%(channel)s::text IS NULL OR o.channel = %(channel)s)
                          AND (%(seen_channel)s::text IS NULL OR o.channel = %(seen_channel)s)
                          AND (%(seen_customer)s::bigint IS NULL OR o.customer_id = %(seen_customer)s) OFFSET 0) o
                    CROSS JOIN LATERAL (
                        SELECT {_EVENT}::text AS event FROM order_events e
                        WHERE e.order_id = v.order_id AND e.number = v.number OFFSET 0) e
                    ORDER BY v.position LIMIT %(limit)s::integer
                LOOP
                    so_far := so_far + octet_length(found.event);
                    EXIT WHEN given > 0 AND so_far > %(bytes)s::bigint;
                    RETURN NEXT found;
                    given := given + 1;
                    last := found.position;
                END LOOP;
                IF given = %(limit)s OR so_far > %(bytes)s THEN
                    reached := last;
                END IF;
                RETURN QUERY SELECT reached, {_MARK.format("reached")}
                             UNION ALL SELECT head, {_MARK.format("%(after)s")}
                             UNION ALL SELECT forgotten, NULL;
            END""",
        )
    ],
    rows='"position" bigint, event text',
    only_reads=True,
)
"""The events after a position that fit into `bytes`, but at least one. Then three more rows: the position up to which
it was read, with the mark of the event there; the last position in the feed, with the mark of the event at `after`; and
the position up to which events are not kept any more.
"""


class Page(NamedTuple):
    """Some events of the feed as JSON, the position up to which it was read, and the last position that there is.

    `mark`: the mark of the event at `end`. `mark_before`: that of the event at the position where the page began.
    `forgotten`: events up to there are not kept any more.
    """

    events: list[str]
    end: int
    head: int
    mark: str | None = None
    mark_before: str | None = None
    forgotten: int = 0

    @property
    def goes_on(self) -> bool:
        """Whether there is more to read now."""
        return self.end < self.head


def read_feed(connection: Connection, wanted: Wanted) -> Page:
    """The next events that are wanted. `Page.end` may be ahead of the last one: what is not wanted was passed."""
    parameters = {
        "after": wanted.after,
        "limit": wanted.limit,
        "types": None if wanted.types is None else list(wanted.types),
        "order_id": wanted.order_id and str(wanted.order_id),
        "channel": wanted.channel,
        "bytes": MAX_PAGE_BYTES,
        **_seer_parameters(wanted.seer),
    }
    with connection.cursor() as cursor:
        FEED.call(cursor, parameters)
        *rows, (reached, mark), (head, mark_before), (forgotten, _) = cursor.fetchall()
    return Page([event for _, event in rows], reached, head, mark, mark_before, forgotten)


def _seer_parameters(seer: Seer) -> dict[str, object]:
    return {"seen_channel": seer.channel, "seen_customer": seer.customer_id, "sees_private": seer.sees_private}


class Head(NamedTuple):
    """Where the feed ends: its last position, and the age in seconds of the oldest event that is not in it yet.

    The age is None while a walk adds old events, and while nobody has begun it.
    """

    position: int
    lag_s: float | None


def read_head(connection: Connection) -> Head:
    """Where the feed ends now."""
    with connection.cursor() as cursor:
        cursor.execute(_HEAD)
        ((position, lag_s),) = cursor.fetchall()
        return Head(position, lag_s)


# As in `assign_sql`, where its parts are explained.
_HEAD = """
    SELECT h.position, CASE WHEN h.cluster IS NOT NULL AND h.walked_order IS NULL THEN greatest(0, coalesce(
        extract(epoch FROM clock_timestamp() - least(
            (SELECT min(e.at) FROM order_events e
             WHERE e.xact = ANY (ARRAY(SELECT pg_snapshot_xip(h.seen))) AND NOT EXISTS (
                SELECT FROM events v WHERE v.order_id = e.order_id AND v.number = e.number)),
            (SELECT min(n.at) FROM (
                SELECT e.at FROM order_events e WHERE e.xact >= pg_snapshot_xmax(h.seen) AND NOT EXISTS (
                    SELECT FROM events v WHERE v.order_id = e.order_id AND v.number = e.number)
                ORDER BY e.xact LIMIT 1000) n))), 0))::float8 END
    FROM (SELECT * FROM events_head ORDER BY position DESC LIMIT 1) h
"""
