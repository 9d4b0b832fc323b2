"""What would be written if it were: orders and events as they would be. Nothing here outlives its own transaction."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from orders.changing.change_sql import DecideMany, lock_orders, write_changes
from orders.order.document_sql import EVENT_JSON, ORDER_JSON
from orders.order.keys_sql import KeyInUse, keys_in_use
from orders.postgres.database import Connection, Cursor, undone
from orders.stock.commit_sql import NewOrder


@dataclass(frozen=True, slots=True)
class Changed:
    """Orders as they would be (JSON), the events of those that would change (a JSON list each), and the stock that
    would then be due back to the products whose stock the changes set free.
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
    """`change_order` and `change_orders`, rolled back: constraints and triggers have really run.

    Raises what `decide` raises, and ReferenceTaken. With a key that is known already: what is known.
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
    """What is due back to each of these products and is not on its way with a batch."""
    cursor.execute(
        """SELECT p.id, (SELECT coalesce(sum(r.quantity), 0)::bigint FROM stock_returns r
                         WHERE r.product_id = p.id AND r.returned_at IS NULL AND r.batch_id IS NULL)
           FROM unnest(%s::bigint[]) p(id)""",
        (list(products),),
    )
    return dict(cursor.fetchall())


def orders_as_placed(connection: Connection, orders: Sequence[NewOrder]) -> list[dict[str, Any]]:
    """These orders as they would be if they were placed now, in the same order; what only placing tells (`id`,
    `number` and the lines' IDs) is None. Reads no order, and draws no number.
    """
    with connection.cursor() as cursor:
        # In this statement `orders` and `order_items` are these rows, so that ORDER_JSON can't tell.
        cursor.execute(
            f"""
            WITH orders AS (
                SELECT o.* FROM jsonb_array_elements(%(orders)s::jsonb) row,
                    jsonb_populate_record(NULL::orders, row || jsonb_build_object(
                        'status', 'Ordered', 'currency', 'USD', 'version', 1, 'adopted', false,
                        'created_at', now(), 'updated_at', now())) o),
            order_items AS (
                SELECT i.* FROM jsonb_array_elements(%(items)s::jsonb) row,
                    jsonb_populate_record(NULL::order_items, row || '{{"cancelled": 0, "returned": 0}}') i)
            SELECT o.id, {ORDER_JSON} FROM orders o
            """,
            {"orders": json.dumps([_row(order) for order in orders]), "items": json.dumps(_item_rows(orders))},
        )
        documents = {UUID(order_id): json.loads(document) for order_id, document in cursor}
    return [_without_ids(documents[order.id]) for order in orders]


def _row(order: NewOrder) -> dict[str, Any]:
    return {
        "id": str(order.id),
        "customer_id": order.customer_id,
        "cart_id": order.cart_id,
        "total": order.total,
        "external_reference": order.details.external_reference,
        "metadata": order.details.metadata and json.loads(order.details.metadata),
        "public_note": order.details.public_note,
        "private_note": order.details.private_note,
    }


def _item_rows(orders: Sequence[NewOrder]) -> list[dict[str, Any]]:
    rows = [(order.id, item) for order in orders for item in order.items]
    return [
        {
            "id": n,
            "order_id": str(order_id),
            "product_id": line.product_id,
            "quantity": line.quantity,
            "name": name,
            "unit_price": unit_price,
        }
        for n, (order_id, (line, name, unit_price)) in enumerate(rows)
    ]


def _without_ids(order: dict[str, Any]) -> dict[str, Any]:
    return {**order, "id": None, "number": None, "items": [{**item, "id": None} for item in order["items"]]}
