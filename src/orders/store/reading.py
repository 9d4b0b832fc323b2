"""Reading orders. PostgreSQL builds the JSON; nobody takes it apart again on its way to the client."""

from collections.abc import Sequence
from uuid import UUID

from orders.database import Connection

_TIME = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

# psycopg2 reads % in a statement as a placeholder; these have none.
ORDER_JSON = f"""json_build_object(
    'id', o.id, 'number', o.number, 'customer_id', o.customer_id, 'status', o.status,
    'items', coalesce((
        SELECT json_agg(json_build_object(
            'id', i.id, 'product_id', i.product_id, 'name', i.name, 'quantity', i.quantity,
            'unit_price', i.unit_price, 'total', i.quantity * i.unit_price) ORDER BY i.id)
        FROM order_items i WHERE i.order_id = o.id), '[]'),
    'currency', o.currency, 'total', o.total, 'version', o.version,
    'external_reference', o.external_reference, 'metadata', coalesce(o.metadata, '{{}}'),
    'notes', json_build_object('public', o.public_note, 'private', o.private_note),
    'created_at', {_TIME.format("o.created_at")}, 'updated_at', {_TIME.format("o.updated_at")})::text"""
"""The order `o` as the wire has it."""


def read_orders(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, str]:
    """The JSON of each of these orders that exists, whatever its status."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT o.id, {ORDER_JSON} FROM orders o WHERE o.id = ANY(%(ids)s::uuid[])",
            {"ids": [str(order_id) for order_id in ids]},
        )
        return {UUID(order_id): document for order_id, document in cursor}


def read_order_by_number(connection: Connection, number: int) -> str | None:
    """The JSON of the order with this number."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {ORDER_JSON} FROM orders o WHERE o.number = %s", (number,))
        row = cursor.fetchone()
        return row[0] if row else None
