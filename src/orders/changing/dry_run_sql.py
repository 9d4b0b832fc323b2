"""Dry runs of changes in the database: written, read, and rolled back. Nothing outlives its own transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.changing.change_sql import DecideMany, lock_orders, write_changes
from orders.order.document_sql import EVENT_JSON
from orders.order.keys_sql import KeyInUse, keys_in_use
from orders.postgres.database import Connection, Cursor, undone


@dataclass(frozen=True, slots=True)
class Changed:
    """Orders after a dry run: their JSON, the new events of those that change (a JSON list each), and per product the
    stock that would be due back.
    """

    orders: Mapping[UUID, str]
    events: Mapping[UUID, str]
    due: Mapping[int, int]


def rehearse_changes(
    connection: Connection,
    wanted: Mapping[UUID, str | None],
    decide: DecideMany,
    key: str | None = None,
    max_bytes: int | None = None,
) -> Changed | KeyInUse:
    """`change_order` and `change_orders`, rolled back. Constraints and triggers really run.

    Raises what `decide` raises, and ReferenceTaken. If the key is known already, returns its known use.
    """
    with undone(connection) as cursor:
        standings = lock_orders(cursor, wanted)
        if standings and key and (known := keys_in_use(connection, [key])):
            return known[key]
        changes = decide(standings)
        orders = write_changes(cursor, changes, list(wanted), max_bytes)
        events = _events(cursor, {change.standing.id: change.standing.version for change in changes})
        return Changed(orders, events, _due(cursor, sorted({p for change in changes for p in change.back})))


def _events(cursor: Cursor, since: Mapping[UUID, int]) -> dict[UUID, str]:
    """The events of each of these orders after a version."""
    if not since:
        return {}
    cursor.execute(
        f"""SELECT e.order_id, json_agg({EVENT_JSON} ORDER BY e.number)::text
            FROM unnest(%(ids)s::uuid[], %(versions)s::integer[]) n(id, version)
            JOIN order_events e ON e.order_id = n.id AND e.number > n.version GROUP BY e.order_id""",
        {"ids": [str(order_id) for order_id in since], "versions": list(since.values())},
    )
    return {UUID(order_id): events for order_id, events in cursor}


def _due(cursor: Cursor, products: Sequence[int]) -> dict[int, int]:
    """The stock that is due back to each of these products and is not carried by a batch."""
    cursor.execute(
        """SELECT p.id, (SELECT coalesce(sum(r.quantity), 0)::bigint FROM stock_returns r
                         WHERE r.product_id = p.id AND r.returned_at IS NULL AND r.batch_id IS NULL)
           FROM unnest(%s::bigint[]) p(id)""",
        (list(products),),
    )
    return dict(cursor.fetchall())
