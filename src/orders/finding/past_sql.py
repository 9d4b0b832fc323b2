"""An order's events, page by page, and the values that its members had at an earlier version.

PostgreSQL searches the events, so only a small part of them is sent here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from orders.finding.lists_sql import LIST_PATIENCE_MS, MAX_PAGE_BYTES, fetch
from orders.order.attached_sql import hidden
from orders.order.document_sql import TIME, event_json, order_json
from orders.order.seer_sql import is_seen_by, seer_values
from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step
from orders.principal import Seer


@dataclass(frozen=True, slots=True)
class Events:
    """Some events of an order as JSON, and the number after which the next page begins (None: no more events)."""

    events: list[str]
    end: int | None


def orders_of_request(connection: Connection, request_id: str, seer: Seer) -> list[UUID]:
    """The orders with an event of this request that the seer sees, oldest first. It reads the whole history: placing
    pays for no index.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT o.id FROM orders o
                WHERE o.id IN (SELECT order_id FROM order_events WHERE request_id = %(request_id)s)
                    AND {is_seen_by(seer)} ORDER BY 1""",
            {"request_id": request_id, **seer_values(seer)},
        )
        return [UUID(order_id) for (order_id,) in cursor]


# Event by event, so that PostgreSQL reads none beyond the end of the page.
def _events(seer: Seer) -> str:
    event = event_json("%(sees_private)s", "seen.customer_id")
    return f"""
        WITH RECURSIVE seen AS MATERIALIZED (
            SELECT o.id, o.customer_id FROM orders o WHERE o.id = %(id)s::uuid AND {is_seen_by(seer)}),
        page AS (
            (SELECT e.number, {event}::text AS event, 0::bigint AS before
             FROM seen JOIN order_events e ON e.order_id = seen.id WHERE e.number > %(after)s ORDER BY e.number LIMIT 1)
            UNION ALL
            SELECT following.number, following.event, page.before + octet_length(page.event)
            FROM page CROSS JOIN LATERAL (
                SELECT e.number, {event}::text AS event
                FROM seen JOIN order_events e ON e.order_id = seen.id
                WHERE e.number > page.number ORDER BY e.number LIMIT 1
            ) following WHERE page.before < {MAX_PAGE_BYTES})
        SELECT page.number, page.event, page.before = 0 OR page.before + octet_length(page.event) <= {MAX_PAGE_BYTES}
        FROM seen LEFT JOIN (SELECT * FROM page LIMIT %(limit)s + 1) page ON true
        ORDER BY page.number"""


def read_events(connection: Connection, order_id: UUID, seer: Seer, after: int, limit: int) -> Events | None:
    """The order's events after the number `after`, oldest first, or None if there is no such order that the seer sees.

    A page ends after `limit` events or before MAX_PAGE_BYTES, but has at least one event if any is left. Raises
    OrderError if it takes too long.
    """
    parameters = {"id": str(order_id), "after": after, "limit": limit, **seer_values(seer)}
    rows = fetch(connection, _events(seer), parameters, LIST_PATIENCE_MS)
    if not rows:
        return None
    found = [row for row in rows if row[0] is not None]
    shown = [row for row in found[:limit] if row[2]]
    return Events([event for _, event, _ in shown], shown[-1][0] if len(shown) < len(found) else None)


def events_json(page: Events, next_url: str | None) -> bytes:
    """The page as JSON of the wire."""
    return f'{{"events":[{",".join(page.events)}],"next":{json.dumps(next_url)}}}'.encode()


@dataclass(frozen=True, slots=True)
class Known:
    """The known versions of an order: the `first` and the `last`.

    `at`: the version at the requested time, or None before its first event, or without a requested time. `began_at`:
    the time of its beginning, or None if it was never recorded.
    """

    first: int
    last: int
    at: int | None
    began_at: str | None


def read_known(connection: Connection, order_id: UUID, seer: Seer, moment: datetime | None) -> Known | None:
    """What is known of this order's past, or None if there is no such order that the seer sees.

    An order from before there was a history begins with the version before its first event.
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
            WHERE o.id = %(id)s::uuid AND {is_seen_by(seer)}""",
        {"id": str(order_id), "moment": moment, **seer_values(seer)},
        LIST_PATIENCE_MS,
    )
    if not rows:
        return None
    first, last, at, began_at = rows[0]
    return Known(last if first is None else max(1, first - 1), last, at, began_at)


@dataclass(frozen=True, slots=True)
class Past:
    """An order as it is now, and the values that undo its later events.

    `members` (with `held_from`) and `lines` (by line) hold the value of each changed member before the first of these
    events. `at`: the time of the version.
    """

    order: dict[str, Any]
    members: dict[str, Any]
    lines: dict[str, dict[str, Any]]
    held_from: str | None
    adopted: bool
    at: str | None


def read_past(connection: Connection, order_id: UUID, seer: Seer, version: int) -> Past:
    """The order, and what happened to it after this version, read at one moment. It has to exist, and the seer to see
    it.

    Raises OrderError if it takes too long.
    """
    rows = fetch(
        connection,
        f"""{_past("%(version)s", "%(sees_private)s")}
            FROM orders o WHERE o.id = %(id)s::uuid AND {is_seen_by(seer)}""",
        {"id": str(order_id), "version": version, **seer_values(seer)},
        LIST_PATIENCE_MS,
    )
    return Past(*rows[0])


def _past(version: str, sees_private: str) -> str:
    """SQL for the columns of a Past of the order `o`. The two arguments are SQL, too."""
    later = f"""SELECT e.number, {hidden("e.before", sees_private)} AS before
                FROM order_events e WHERE e.order_id = o.id AND e.number > {version}"""
    return f"""SELECT {order_json(sees_private)}::json,
                (SELECT coalesce(json_object_agg(name, value), '{{}}') FROM (
                    SELECT DISTINCT ON (m.name) m.name, m.value
                    FROM ({later}) later CROSS JOIN LATERAL jsonb_each(later.before - 'items') m(name, value)
                    ORDER BY m.name, later.number) members),
                (SELECT coalesce(json_object_agg(id, members), '{{}}') FROM (
                    SELECT id, json_object_agg(name, value) AS members FROM (
                        SELECT DISTINCT ON (line->>'id', m.name) line->>'id' AS id, m.name, m.value
                        FROM ({later}) later CROSS JOIN LATERAL jsonb_array_elements(later.before->'items') line
                        CROSS JOIN LATERAL jsonb_each(line - 'id') m(name, value)
                        ORDER BY line->>'id', m.name, later.number) found
                    GROUP BY id) lines),
                o.held_from, o.adopted,
                coalesce((SELECT {TIME.format("e.at")} FROM order_events e
                          WHERE e.order_id = o.id AND e.number = {version}), {TIME.format("o.placed_at")})"""


PASTS = Function(
    "pasts",
    [
        Step(
            ALWAYS,
            f"""RETURN QUERY SELECT w.n, past.* FROM unnest(%(ids)s::uuid[], %(versions)s::integer[])
                    WITH ORDINALITY w(id, version, n)
                CROSS JOIN LATERAL ({_past("w.version", "%(sees_private)s::boolean")} FROM orders o
                    WHERE o.id = w.id AND (%(seen_customer)s::bigint IS NULL OR o.customer_id = %(seen_customer)s)
                        AND (%(seen_channel)s::text IS NULL OR o.channel = %(seen_channel)s))
                    past(document, members, lines, held_from, adopted, at)""",
        )
    ],
    rows='n bigint, document json, members json, lines json, held_from text, adopted boolean, "at" text',
    only_reads=True,
)
"""What `read_past` reads, of many orders and versions. `n` is the place of the pair."""


def read_pasts(connection: Connection, wanted: Sequence[tuple[UUID, int]], seer: Seer) -> dict[tuple[UUID, int], Past]:
    """The orders that exist and that the seer sees, and what happened to each after its version, read at one moment."""
    with connection.cursor() as cursor:
        PASTS.call(
            cursor,
            {
                "ids": [str(order_id) for order_id, _ in wanted],
                "versions": [version for _, version in wanted],
                **seer_values(seer),
            },
        )
        return {wanted[n - 1]: Past(*past) for n, *past in cursor}
