"""Orders as they would be if they were placed now. Nothing is written."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from orders.order.attached_sql import attached_row
from orders.order.document_sql import ORDER_JSON
from orders.postgres.database import Connection
from orders.stock.intend_sql import NewOrder


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
        "channel": order.channel,
        **attached_row(order.details),
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
