"""Dry runs of changes in the database: written, read, and rolled back. Nothing outlives its own transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.changing.change import DecideMany
from orders.changing.change_sql import RequestKey, known_use, lock_orders, write_changes
from orders.errors import OrderError
from orders.order.document import Document
from orders.order.document_sql import event_json
from orders.order.keys_sql import KeyInUse
from orders.postgres.database import Connection, Cursor, undone
from orders.principal import Seer


@dataclass(frozen=True, slots=True)
class ChangesUndone:
    """Orders after a dry run, and the refusals. `events`: the new events of those that change, a JSON list each. `due`:
    the stock per product that would be due back.
    """

    orders: Mapping[UUID, Document]
    refused: Mapping[UUID, OrderError]
    events: Mapping[UUID, str]
    due: Mapping[int, int]


def change_and_undo(
    connection: Connection,
    seer: Seer,
    wanted: Mapping[UUID, str | None],
    decide: DecideMany,
    key: RequestKey | None = None,
    max_bytes: int | None = None,
) -> ChangesUndone | KeyInUse:
    """`change_order` and `change_orders`, rolled back. Constraints and triggers really run.

    Raises what `decide` raises, and ReferenceTaken. If the key is known already, returns its known use.
    """
    with undone(connection) as cursor:
        states = lock_orders(cursor, seer, wanted)
        if states and key and (known := known_use(connection, key)):
            return known
        decisions = decide(states)
        orders = write_changes(cursor, seer, decisions.changes, list(states), max_bytes)
        events = _events(cursor, seer, {change.state.id: change.state.version for change in decisions.changes})
        restocked = {product_id for change in decisions.changes for product_id in change.restock.units}
        return ChangesUndone(orders, decisions.refused, events, _due(cursor, sorted(restocked)))


def _events(cursor: Cursor, seer: Seer, since: Mapping[UUID, int]) -> dict[UUID, str]:
    """The events of each of these orders after a version, as the seer sees them."""
    if not since:
        return {}
    cursor.execute(
        f"""SELECT e.order_id, json_agg({event_json("%(sees_private)s", "o.customer_id")} ORDER BY e.number)::text
            FROM unnest(%(ids)s::uuid[], %(versions)s::integer[]) n(id, version)
            JOIN orders o USING (id)
            JOIN order_events e ON e.order_id = n.id AND e.number > n.version GROUP BY e.order_id""",
        {
            "ids": [str(order_id) for order_id in since],
            "versions": list(since.values()),
            "sees_private": seer.sees_private,
        },
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
