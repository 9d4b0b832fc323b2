"""Changing placed orders: locks them, reads their state, and writes what was decided, each with its event."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg2.errors

from orders.order import attached_sql
from orders.order.document_sql import ALLOWED, ORDER_JSON, SHORT_JSON, Short
from orders.order.events import EventType
from orders.order.keys_sql import KeyInUse, Outcome, keep_outcome, keys_in_use
from orders.order.model import NO_DETAILS, Author, Details
from orders.postgres.database import Connection, Cursor, transaction


@dataclass(frozen=True, slots=True)
class Part:
    """A line of an order. `quantity` was not cancelled; `returned` of that came back."""

    id: int
    product_id: int
    quantity: int
    unit_price: int | None
    cancelled: int
    returned: int

    @property
    def left(self) -> int:
        """Units that can still be cancelled or come back."""
        return self.quantity - self.returned


@dataclass(frozen=True, slots=True)
class OrderState:
    """An order's state under lock, and the statuses that may follow.

    `wanted_is_hold` and `wanted_gives_back` are about the wanted status: the table has it as a hold, or as one that
    gives stock back. `description_count`: number of changes of the details. It is only counted if no status is wanted
    and the order has a thousand versions.
    """

    id: UUID
    status: str
    held_from: str | None
    version: int
    total: int | None
    allowed: tuple[str, ...]
    wanted_is_hold: bool
    wanted_gives_back: bool
    parts: tuple[Part, ...]
    attached: Details = NO_DETAILS
    description_count: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an order, and its event.

    `cancelled` and `returned` map lines to quantities. `attached`: the new details, or None if they stay. `back` maps
    products to stock that goes back. With `is_rest` that is all that is left of the order, which happens once in its
    life.
    """

    standing: OrderState
    type: EventType
    author: Author
    status: str
    held_from: str | None = None
    total: int | None = None
    cancelled: Mapping[int, int] = field(default_factory=dict)
    returned: Mapping[int, int] = field(default_factory=dict)
    back: Mapping[int, int] = field(default_factory=dict)
    is_rest: bool = False
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] | None = None
    reason: str | None = None
    note: str | None = None
    attached: Details | None = None


Decide = Callable[[OrderState], Change | None]
"""A function that decides what becomes of an order (None: nothing). If it raises, everything is undone."""


def change_order(
    connection: Connection, order_id: UUID, wanted: str | None, decide: Decide, key: tuple[str, bytes] | None = None
) -> str | KeyInUse | None:
    """Change one order in one transaction. Returns its JSON afterwards, or None if there is no such order.

    Two calls at once take turns. With a key (and its request's fingerprint) the JSON is remembered. If the key is known
    already, nothing is changed, and the known use is returned. Raises ReferenceTaken.
    """
    with transaction(connection) as cursor:
        standing = lock_orders(cursor, {order_id: wanted}).get(order_id)
        if standing is None:
            return None
        if key and (known := keys_in_use(connection, [key[0]])):
            return known[key[0]]
        change = decide(standing)
        body = write_changes(cursor, [change] if change else [], [order_id])[order_id]
        if key and not keep_outcome(connection, *key, Outcome(200, body, None)):
            raise KeyTaken
        return body


DecideMany = Callable[[Mapping[UUID, OrderState]], Sequence[Change]]
"""A function that decides about many orders. It gets those that exist, and may be called twice."""


def change_orders(
    connection: Connection, wanted: Mapping[UUID, str], decide: DecideMany, max_bytes: int
) -> dict[UUID, str]:
    """Change many orders in one transaction. Returns the JSON of those that exist, in short beyond `max_bytes`.

    Orders are locked in the order of their IDs: two calls at once take turns, and never deadlock.
    """
    with transaction(connection) as cursor:
        changes = decide(lock_orders(cursor, wanted))
        return write_changes(cursor, changes, list(wanted), max_bytes)


class KeyTaken(Exception):
    """A request for another order was first with the same key. Nothing was written."""


class ReferenceTaken(Exception):
    """Another order has the external reference. Nothing was written."""


def change_stale(
    connection: Connection, status: str, stayed: timedelta, wanted: str, limit: int, decide: Decide
) -> int:
    """Decide about orders that have been in this status for at least `stayed`, the oldest first. Returns how many were
    changed.

    This is one transaction. Locked orders are left to the next call. Adopted orders are left out, because their times
    were never recorded.
    """
    with transaction(connection) as cursor:
        cursor.execute(_STALE, {"status": status, "stayed": stayed, "limit": limit})
        ids = [UUID(order_id) for (order_id,) in cursor]
        standings = lock_orders(cursor, dict.fromkeys(ids, wanted))
        changes = [change for standing in standings.values() if (change := decide(standing))]
        write_changes(cursor, changes, ())
        return len(changes)


# IDs begin with the time they were made (48 bits of milliseconds), so younger orders are skipped by ID. The minute
# allows for different clocks of the replicas.
_STALE = """
    SELECT id FROM orders
    WHERE status = %(status)s AND coalesce(moved_at, placed_at) < now() - %(stayed)s
      AND id < rpad(lpad(to_hex((1000 * extract(epoch FROM now() - %(stayed)s + interval '1 min'))::bigint), 12, '0'),
                    32, '0')::uuid
    ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
"""


def lock_orders(cursor: Cursor, wanted: Mapping[UUID, str | None]) -> dict[UUID, OrderState]:
    """Lock those of these orders that exist until the transaction ends, and read their states.

    `wanted` maps each order to its wanted status, or to None if the status stays. Meanwhile, foreign keys may still
    refer to the orders. The lock is a statement of its own, so that the statements after it see what others committed.
    """
    cursor.execute(
        f"""
        SELECT FROM orders WHERE id = ANY(%(ids)s::uuid[]) ORDER BY id FOR NO KEY UPDATE;
        SELECT o.id, o.status, o.held_from, o.version, o.total, {ALLOWED},
               coalesce(t.is_hold, false), coalesce(t.gives_stock_back, false),
               (SELECT json_agg(json_build_array(i.id, i.product_id, i.quantity, i.unit_price, i.cancelled, i.returned)
                                ORDER BY i.id)
                FROM order_items i WHERE i.order_id = o.id),
               CASE WHEN w.status IS NULL AND o.version > 1000 THEN (
                   SELECT count(*) FROM order_events e WHERE e.order_id = o.id AND e.type = '{EventType.DESCRIBED}')
                    ELSE 0 END,
               {", ".join(attached_sql.COLUMNS.values())}
        FROM unnest(%(ids)s::uuid[], %(wanted)s::text[]) w(id, status) JOIN orders o USING (id)
        LEFT JOIN order_statuses t ON t.status = w.status
        """,
        {"ids": [str(order_id) for order_id in wanted], "wanted": list(wanted.values())},
    )
    return {
        UUID(i): OrderState(
            UUID(i), status, held_from, version, total, tuple(allowed), hold, back, _parts(parts), Details(*attached), n
        )
        for i, status, held_from, version, total, allowed, hold, back, parts, n, *attached in cursor
    }


def _parts(rows: Sequence[Sequence[Any]] | None) -> tuple[Part, ...]:
    return tuple(Part(*row) for row in rows or ())


def write_changes(
    cursor: Cursor, changes: Sequence[Change], ids: Sequence[UUID], max_bytes: int | None = None
) -> dict[UUID, str]:
    """Write the changes, each with its event. Returns the JSON of the orders `ids` afterwards. With `max_bytes`, orders
    beyond that many bytes are `Short`.

    The event is inserted first: its timestamp becomes `updated_at`. The row lock makes it unique per order.
    """
    parameters = {"read": [str(order_id) for order_id in ids], "max_bytes": max_bytes, **_parameters(changes)}
    # Only statements that have something to do: each one costs its planning.
    statements = [statement for need, statement in _WRITE if parameters[need]]
    statements.append(_READ if max_bytes is None else _READ_SOME)
    try:
        cursor.execute(";".join(statements), parameters)
    except psycopg2.errors.UniqueViolation as error:
        if error.diag.constraint_name == "orders_one_per_reference":
            raise ReferenceTaken from None
        raise
    return {UUID(order_id): Short(short) if whole is None else whole for order_id, whole, short in cursor}


_READ = f"SELECT o.id, {ORDER_JSON}, NULL FROM orders o WHERE o.id = ANY(%(read)s::uuid[])"
_READ_SOME = f"""
    SELECT id, CASE WHEN so_far <= %(max_bytes)s THEN whole END, short
    FROM (SELECT *, sum(octet_length(whole)) OVER (ORDER BY id) AS so_far
          FROM (SELECT o.id, {ORDER_JSON} AS whole, {SHORT_JSON} AS short
                FROM orders o WHERE o.id = ANY(%(read)s::uuid[])) orders_there) found"""

_WRITE = (
    (
        "ids",
        """
            INSERT INTO order_events
                (order_id, number, type, before, after, details, actor, reason, note, request_id, at)
                SELECT o.id, o.version + 1, n.type, n.before, n.after, n.details, n.actor, n.reason, n.note,
                       n.request_id, greatest(clock_timestamp(), o.updated_at)
                FROM unnest(%(ids)s::uuid[], %(types)s::text[], %(befores)s::jsonb[], %(afters)s::jsonb[],
                            %(details)s::jsonb[], %(actors)s::text[], %(reasons)s::text[], %(notes)s::text[],
                            %(requests)s::text[])
                    n(id, type, before, after, details, actor, reason, note, request_id) JOIN orders o USING (id);
            UPDATE orders o SET status = n.status, held_from = n.held_from, total = n.total, version = o.version + 1,
                                updated_at = e.at
                FROM unnest(%(ids)s::uuid[], %(statuses)s::text[], %(held_from)s::text[], %(totals)s::bigint[])
                    n(id, status, held_from, total), order_events e
                WHERE o.id = n.id AND e.order_id = n.id AND e.number = o.version + 1""",
    ),
    (
        "attached",
        f"""
            UPDATE orders o SET {attached_sql.ASSIGNMENTS}
                FROM unnest(%(attached)s::uuid[], {attached_sql.ARRAYS}) n(id, {attached_sql.NAMES})
                WHERE o.id = n.id""",
    ),
    (
        "parts",
        """
            UPDATE order_items i SET quantity = i.quantity - n.cancelled, cancelled = i.cancelled + n.cancelled,
                                     returned = i.returned + n.returned
                FROM unnest(%(parts)s::bigint[], %(cancelled)s::integer[], %(returned)s::integer[])
                    n(id, cancelled, returned)
                WHERE i.id = n.id""",
    ),
    (
        "back",
        """
            INSERT INTO stock_returns (order_id, product_id, quantity, number)
                SELECT * FROM unnest(%(back_orders)s::uuid[], %(back_products)s::bigint[], %(back)s::bigint[],
                                     %(back_numbers)s::integer[])
                ON CONFLICT DO NOTHING""",
    ),
)
"""Statements, each with the parameter that has to hold something."""


def _parameters(changes: Sequence[Change]) -> dict[str, Any]:
    parts = [(part, change) for change in changes for part in {**change.cancelled, **change.returned}]
    attached = {str(c.standing.id): c.attached for c in changes if c.attached is not None}
    back = [(change, *units) for change in changes for units in change.back.items()]
    return {
        "ids": [str(c.standing.id) for c in changes],
        "types": [c.type for c in changes],
        "befores": [json.dumps(dict(c.before)) for c in changes],
        "afters": [json.dumps(dict(c.after)) for c in changes],
        "details": [c.details and json.dumps(dict(c.details)) for c in changes],
        "actors": [c.author.actor for c in changes],
        "reasons": [c.reason for c in changes],
        "notes": [c.note for c in changes],
        "requests": [c.author.request_id for c in changes],
        "statuses": [c.status for c in changes],
        "held_from": [c.held_from for c in changes],
        "totals": [c.total for c in changes],
        "attached": list(attached),
        **attached_sql.attached_parameters(list(attached.values())),
        "parts": [part for part, _ in parts],
        "cancelled": [change.cancelled.get(part, 0) for part, change in parts],
        "returned": [change.returned.get(part, 0) for part, change in parts],
        "back_orders": [str(change.standing.id) for change, _, _ in back],
        "back_products": [product_id for _, product_id, _ in back],
        "back": [quantity for _, _, quantity in back],
        "back_numbers": [0 if change.is_rest else change.standing.version + 1 for change, _, _ in back],
    }
