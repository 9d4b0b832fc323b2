"""Changing placed orders: locks them, reads their state, and writes what was decided, each with its event."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg2.errors

from orders.changing.change import Change, Decide, DecideMany, OrderState, Part
from orders.errors import OrderError
from orders.order import attached_sql
from orders.order.audit_sql import AuditEntry, add_audit
from orders.order.document import Document
from orders.order.document_sql import ALLOWED, SHORT_JSON, order_json
from orders.order.events import Event, EventType
from orders.order.keys_sql import KeyInUse, Outcome, keep_outcome, keys_in_use
from orders.order.model import Details
from orders.order.seer_sql import is_seen_by, seer_values
from orders.postgres.database import Connection, Cursor, transaction
from orders.postgres.rows import named_rows
from orders.principal import SEES_EVERYTHING, Seer


class RequestKey(NamedTuple):
    """An Idempotency-Key as it is stored, and the fingerprint of the request that came with it.

    `once_stored`: the key as an earlier release may have stored it.
    """

    key: str
    fingerprint: bytes
    once_stored: str | None = None


class ChangedOrders(NamedTuple):
    """All orders of a request as they are afterwards, and the refusals."""

    orders: dict[UUID, Document]
    refused: Mapping[UUID, OrderError]


def change_order(
    connection: Connection,
    seer: Seer,
    order_id: UUID,
    wanted: str | None,
    decide: Decide,
    key: RequestKey | None = None,
) -> Document | KeyInUse | None:
    """Change one order in one transaction. Returns the order afterwards, or None if the seer sees no such order.

    Two calls at once take turns. With a key the answer is remembered. If the key is known already, nothing is changed,
    and the known use is returned. Raises KeyTaken and ReferenceTaken.
    """
    with transaction(connection) as cursor:
        state = lock_orders(cursor, seer, {order_id: wanted}).get(order_id)
        if state is None:
            return None
        if key and (known := known_use(connection, key)):
            return known
        change = decide(state)
        order = write_changes(cursor, seer, [change] if change else [], [order_id])[order_id]
        if key and not keep_outcome(connection, key.key, key.fingerprint, Outcome(200, order.json, None)):
            raise KeyTaken
        return order


def known_use(connection: Connection, key: RequestKey) -> KeyInUse | None:
    """The known use of this key, or None. A row of an earlier release counts if it is of the same request."""
    names = [name for name in (key.key, key.once_stored) if name]
    known = keys_in_use(connection, names)
    if key.key in known:
        return known[key.key]
    earlier = known.get(key.once_stored or "")
    return earlier if earlier and earlier.fingerprint == key.fingerprint else None


def change_orders(
    connection: Connection, seer: Seer, wanted: Mapping[UUID, str], decide: DecideMany, max_bytes: int
) -> ChangedOrders:
    """Change many orders in one transaction, with an entry in the audit. Returns those that the seer sees, in short
    beyond `max_bytes`.

    Orders are locked in the order of their IDs: two calls at once take turns, and never deadlock.
    """
    with transaction(connection) as cursor:
        states = lock_orders(cursor, seer, wanted)
        decisions = decide(states)
        if decisions.changes:
            add_audit(cursor, _moved(decisions.changes))
        return ChangedOrders(write_changes(cursor, seer, decisions.changes, list(states), max_bytes), decisions.refused)


MAX_AUDITED = 10
"""Maximum number of orders that the audit names of those that moved together. Their histories have the same request."""


def _moved(changes: Sequence[Change]) -> AuditEntry:
    """The entry for orders that move together: how many, to which statuses, and the first of them."""
    author, statuses = changes[0].event.author, Counter(change.status for change in changes)
    after = {
        "count": len(changes),
        "statuses": dict(sorted(statuses.items())),
        "order_ids": [str(change.state.id) for change in changes[:MAX_AUDITED]],
    }
    return AuditEntry(author.actor, "orders_moved", None, None, after, author.address, author.request_id)


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
        states = lock_orders(cursor, SEES_EVERYTHING, dict.fromkeys(ids, wanted))
        changes = [change for state in states.values() if (change := decide(state))]
        write_changes(cursor, SEES_EVERYTHING, changes, ())
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


def lock_orders(cursor: Cursor, seer: Seer, wanted: Mapping[UUID, str | None]) -> dict[UUID, OrderState]:
    """Lock those of these orders that the seer sees until the transaction ends, and read their states.

    `wanted` maps each order to its wanted status, or to None if the status stays. Meanwhile, foreign keys may still
    refer to the orders. The lock is a statement of its own, so that the statements after it see what others committed.
    """
    cursor.execute(
        f"""
        SELECT FROM orders o WHERE o.id = ANY(%(ids)s::uuid[]) AND {is_seen_by(seer)} ORDER BY o.id FOR NO KEY UPDATE;
        SELECT o.id, o.status, o.held_from, o.version, o.total, {ALLOWED} AS allowed,
               coalesce(t.is_hold, false) AS wanted_is_hold, coalesce(t.gives_stock_back, false) AS wanted_gives_back,
               (SELECT json_agg(json_build_object(
                    'id', i.id, 'product_id', i.product_id, 'quantity', i.quantity, 'unit_price', i.unit_price,
                    'cancelled', i.cancelled, 'returned', i.returned) ORDER BY i.id)
                FROM order_items i WHERE i.order_id = o.id) AS parts,
               CASE WHEN w.status IS NULL AND o.version > 1000 THEN (
                   SELECT count(*) FROM order_events e WHERE e.order_id = o.id AND e.type = '{EventType.DESCRIBED}')
                    ELSE 0 END AS description_count,
               {_ATTACHED}
        FROM unnest(%(ids)s::uuid[], %(wanted)s::text[]) w(id, status) JOIN orders o USING (id)
        LEFT JOIN order_statuses t ON t.status = w.status WHERE {is_seen_by(seer)}
        """,
        {"ids": [str(order_id) for order_id in wanted], "wanted": list(wanted.values()), **seer_values(seer)},
    )
    return {state.id: state for state in map(_state, named_rows(cursor))}


_ATTACHED = ", ".join(f"{column} AS {name}" for name, column in attached_sql.COLUMNS.items())


def _state(row: dict[str, Any]) -> OrderState:
    attached = Details(**{name: row.pop(name) for name in attached_sql.COLUMNS})
    parts = tuple(Part(**part) for part in row.pop("parts") or ())
    order_id, allowed = UUID(row.pop("id")), tuple(row.pop("allowed"))
    return OrderState(id=order_id, allowed=allowed, parts=parts, attached=attached, **row)


def write_changes(
    cursor: Cursor, seer: Seer, changes: Sequence[Change], ids: Sequence[UUID], max_bytes: int | None = None
) -> dict[UUID, Document]:
    """Write the changes, each with its event; returns the orders `ids` as the seer sees them then. With `max_bytes`
    those behind the first so many bytes are in short. `lock_orders` has found out which the seer sees.

    The event is inserted first: its timestamp becomes `updated_at`. The row lock makes it unique per order.
    """
    read = {"read": [str(order_id) for order_id in ids], "max_bytes": max_bytes, "sees_private": seer.sees_private}
    parameters = {**read, **_parameters(changes)}
    # Only statements that have something to do: each one costs its planning.
    statements = [statement for need, statement in _WRITE if parameters[need]]
    statements.append(_READ if max_bytes is None else _READ_SOME)
    try:
        cursor.execute(";".join(statements), parameters)
    except psycopg2.errors.UniqueViolation as error:
        if error.diag.constraint_name == "orders_one_per_reference":
            raise ReferenceTaken from None
        raise
    return {
        UUID(order_id): Document(version, short, is_short=True) if whole is None else Document(version, whole)
        for order_id, version, whole, short in cursor
    }


_JSON = order_json("%(sees_private)s")
_READ = f"SELECT o.id, o.version, {_JSON}, NULL FROM orders o WHERE o.id = ANY(%(read)s::uuid[])"
_READ_SOME = f"""
    SELECT id, version, CASE WHEN so_far <= %(max_bytes)s THEN whole END, short
    FROM (SELECT *, sum(octet_length(whole)) OVER (ORDER BY id) AS so_far
          FROM (SELECT o.id, o.version, {_JSON} AS whole, {SHORT_JSON} AS short
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
        "restocked",
        """
            INSERT INTO stock_returns (order_id, product_id, quantity, number)
                SELECT * FROM unnest(%(restocked_orders)s::uuid[], %(restocked_products)s::bigint[],
                                     %(restocked)s::bigint[], %(restocked_numbers)s::integer[])
                ON CONFLICT DO NOTHING""",
    ),
)
"""Statements, each with the parameter that has to hold something."""


def _parameters(changes: Sequence[Change]) -> dict[str, Any]:
    parts = [(part, change) for change in changes for part in {**change.cancelled, **change.returned}]
    attached = {str(c.state.id): c.attached for c in changes if c.attached is not None}
    restocked = [(change, *units) for change in changes for units in change.restock.units.items()]
    return {
        "ids": [str(c.state.id) for c in changes],
        **_event_parameters([c.event for c in changes]),
        "statuses": [c.status for c in changes],
        "held_from": [c.held_from for c in changes],
        "totals": [c.total for c in changes],
        "attached": list(attached),
        **attached_sql.attached_parameters(list(attached.values())),
        "parts": [part for part, _ in parts],
        "cancelled": [change.cancelled.get(part, 0) for part, change in parts],
        "returned": [change.returned.get(part, 0) for part, change in parts],
        "restocked_orders": [str(change.state.id) for change, _, _ in restocked],
        "restocked_products": [product_id for _, product_id, _ in restocked],
        "restocked": [quantity for _, _, quantity in restocked],
        "restocked_numbers": [change.restock.number for change, _, _ in restocked],
    }


def _event_parameters(events: Sequence[Event]) -> dict[str, Any]:
    return {
        "types": [event.type for event in events],
        "befores": [json.dumps(dict(event.before)) for event in events],
        "afters": [json.dumps(dict(event.after)) for event in events],
        "details": [event.details and json.dumps(dict(event.details)) for event in events],
        "actors": [event.author.actor for event in events],
        "reasons": [event.reason for event in events],
        "notes": [event.note for event in events],
        "requests": [event.author.request_id for event in events],
    }
