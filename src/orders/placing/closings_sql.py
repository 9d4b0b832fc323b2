"""Carts that have still to be closed."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Closing:
    """A cart to be closed for an order. `cart_id` is None for explicit items; `lines` maps products to quantities."""

    order_id: UUID
    customer_id: int
    cart_id: int | None
    lines: dict[int, int]


def due_closings(connection: Connection, limit: int, again_after_s: float) -> list[Closing]:
    """Carts to be closed now; each is this caller's for `again_after_s`, then it is due again."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE cart_closings SET retry_at = now() + %(again)s * interval '1 s'
            WHERE order_id IN (SELECT order_id FROM cart_closings WHERE retry_at <= now()
                               ORDER BY retry_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
            RETURNING order_id, customer_id, cart_id, (
                SELECT json_agg(json_build_array(product_id, quantity + cancelled)) FROM order_items i
                WHERE i.order_id = cart_closings.order_id)
            """,
            {"limit": limit, "again": again_after_s},
        )
        return [Closing(UUID(o), customer, cart, dict(items or [])) for o, customer, cart, items in cursor]


def closings_done(connection: Connection, order_ids: Sequence[UUID]) -> None:
    """These orders' carts need nothing more."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM cart_closings WHERE order_id = ANY(%s::uuid[])", ([str(order_id) for order_id in order_ids],)
        )
