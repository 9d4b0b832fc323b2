"""What happened to an order, page by page, and what its members were at an earlier version. PostgreSQL looks through
the events; however many there are, little of it comes here.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from orders.finding.lists_sql import LIST_PATIENCE_MS, MAX_PAGE_BYTES, fetch
from orders.order.document_sql import EVENT_JSON, ORDER_JSON, TIME
from orders.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Events:
    """Some events of an order, each one's JSON, and the number behind which the next page begins (None: no more)."""

    events: list[str]
    end: int | None


def orders_of_request(connection: Connection, request_id: str) -> list[UUID]:
    """The orders with an event of this request, oldest first. Reads the whole history: placing pays no index."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT order_id FROM order_events WHERE request_id = %s ORDER BY 1", (request_id,))
        return [UUID(order_id) for (order_id,) in cursor]


# Event after event, so that PostgreSQL reads none behind the end of the page.
_EVENTS = f"""
    WITH RECURSIVE page AS (
        (SELECT e.number, {EVENT_JSON}::text AS event, 0::bigint AS before
         FROM order_events e WHERE e.order_id = %(id)s::uuid AND e.number > %(after)s ORDER BY e.number LIMIT 1)
        UNION ALL
        SELECT following.number, following.event, page.before + octet_length(page.event)
        FROM page CROSS JOIN LATERAL (
            SELECT e.number, {EVENT_JSON}::text AS event
            FROM order_events e WHERE e.order_id = %(id)s::uuid AND e.number > page.number ORDER BY e.number LIMIT 1
        ) following WHERE page.before < {MAX_PAGE_BYTES})
    SELECT page.number, page.event, page.before = 0 OR page.before + octet_length(page.event) <= {MAX_PAGE_BYTES}
    FROM orders o LEFT JOIN (SELECT * FROM page LIMIT %(limit)s + 1) page ON true
    WHERE o.id = %(id)s::uuid ORDER BY page.number
"""


def read_events(connection: Connection, order_id: UUID, after: int, limit: int) -> Events | None:
    """The order's events behind the number `after`, first things first; None if there is no such order. A page ends
    after `limit` events or before MAX_PAGE_BYTES, and has one event at least, unless none is left.

    Raises OrderError where that takes too long.
    """
    parameters = {"id": str(order_id), "after": after, "limit": limit}
    rows = fetch(connection, _EVENTS, parameters, LIST_PATIENCE_MS)
    if not rows:
        return None
    found = [row for row in rows if row[0] is not None]
    shown = [row for row in found[:limit] if row[2]]
    return Events([event for _, event, _ in shown], shown[-1][0] if len(shown) < len(found) else None)


def events_json(page: Events, next_url: str | None) -> bytes:
    """The page as the wire has it."""
    return f'{{"events":[{",".join(page.events)}],"next":{json.dumps(next_url)}}}'.encode()


@dataclass(frozen=True, slots=True)
class Known:
    """As far back as an order is known: the first version and the last, the version that it had at the time that was
    asked for (None: before its first event, or no time was asked for), and when it began (None: nobody recorded it).
    """

    first: int
    last: int
    at: int | None
    began_at: str | None


def read_known(connection: Connection, order_id: UUID, moment: datetime | None) -> Known | None:
    """What is known of this order's past; None if there is no such order.

    Orders from before there was a history begin with the version that they had then, the one before their first event.
    """
    rows = fetch(
        connection,
        f"""SELECT first.number, o.version,
                   (SELECT e.number FROM order_events e WHERE e.order_id = o.id AND e.at <= %(moment)s
                    ORDER BY e.number DESC LIMIT 1),
                   coalesce(CASE WHEN first.number = 1 THEN {TIME.format("first.at")} END, {TIME.format("o.placed_at")})
            FROM orders o LEFT JOIN LATERAL (
                SELECT e.number, e.at FROM order_events e WHERE e.order_id = o.id ORDER BY e.number LIMIT 1
            ) first ON true
            WHERE o.id = %(id)s::uuid""",
        {"id": str(order_id), "moment": moment},
        LIST_PATIENCE_MS,
    )
    if not rows:
        return None
    first, last, at, began_at = rows[0]
    return Known(last if first is None else max(1, first - 1), last, at, began_at)


@dataclass(frozen=True, slots=True)
class Past:
    """An order as it is now, and what is to be undone of it: for each of its members that a later event changed (and
    `held_from`), and by line for its lines', what the first of these events found there. `at`: of the version.
    """

    order: dict[str, Any]
    members: dict[str, Any]
    lines: dict[str, dict[str, Any]]
    held_from: str | None
    adopted: bool
    at: str | None


def read_past(connection: Connection, order_id: UUID, version: int) -> Past:
    """The order with what happened to it after this version, of one moment. The order is there.

    Raises OrderError where that takes too long.
    """
    rows = fetch(
        connection,
        f"""WITH later AS NOT MATERIALIZED (
                SELECT e.number, e.before FROM order_events e
                WHERE e.order_id = %(id)s::uuid AND e.number > %(version)s)
            SELECT {ORDER_JSON}::json,
                (SELECT coalesce(json_object_agg(name, value), '{{}}') FROM (
                    SELECT DISTINCT ON (m.name) m.name, m.value
                    FROM later CROSS JOIN LATERAL jsonb_each(later.before - 'items') m(name, value)
                    ORDER BY m.name, later.number) members),
                (SELECT coalesce(json_object_agg(id, members), '{{}}') FROM (
                    SELECT id, json_object_agg(name, value) AS members FROM (
                        SELECT DISTINCT ON (line->>'id', m.name) line->>'id' AS id, m.name, m.value
                        FROM later CROSS JOIN LATERAL jsonb_array_elements(later.before->'items') line
                        CROSS JOIN LATERAL jsonb_each(line - 'id') m(name, value)
                        ORDER BY line->>'id', m.name, later.number) found
                    GROUP BY id) lines),
                o.held_from, o.adopted,
                coalesce((SELECT {TIME.format("e.at")} FROM order_events e
                          WHERE e.order_id = o.id AND e.number = %(version)s), {TIME.format("o.placed_at")})
            FROM orders o WHERE o.id = %(id)s::uuid""",
        {"id": str(order_id), "version": version},
        LIST_PATIENCE_MS,
    )
    return Past(*rows[0])
