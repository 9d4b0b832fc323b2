"""An order's status: reading it to decide, and writing it if nobody else did in between."""

from dataclasses import dataclass
from uuid import UUID

from orders.database import Connection
from orders.store.reading import ORDER_JSON


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an order stands."""

    status: str
    held_from: str | None
    adopted: bool
    version: int
    body: str


def read_standing(connection: Connection, order_id: UUID) -> Standing | None:
    """Where the order stands, and its JSON."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT o.status, o.held_from, o.adopted, o.version, {ORDER_JSON} FROM orders o WHERE o.id = %s",
            (str(order_id),),
        )
        row = cursor.fetchone()
        return Standing(*row) if row else None


def write_status(
    connection: Connection, order_id: UUID, version: int, status: str, held_from: str | None, *, give_back: bool
) -> str | None:
    """Move the order, if it still has this version; `give_back` queues its stock to go back, in the same commit.

    Returns the order's new JSON, or None where someone else has changed it since. Legacy lines may name a product
    twice, so what goes back is summed.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH moved AS (
                UPDATE orders SET status = %(status)s, held_from = %(held_from)s, version = version + 1,
                                  updated_at = now()
                WHERE id = %(id)s AND version = %(version)s RETURNING *),
            given_back AS (
                INSERT INTO stock_returns (order_id, product_id, quantity)
                SELECT moved.id, i.product_id, sum(i.quantity) FROM moved JOIN order_items i ON i.order_id = moved.id
                WHERE %(give_back)s GROUP BY 1, 2 ON CONFLICT DO NOTHING)
            SELECT {ORDER_JSON} FROM moved o
            """,
            {
                "id": str(order_id),
                "version": version,
                "status": status,
                "held_from": held_from,
                "give_back": give_back,
            },
        )
        row = cursor.fetchone()
        return row[0] if row else None
