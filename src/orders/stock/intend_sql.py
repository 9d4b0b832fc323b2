"""INTEND: the commit of a batch before its PUTs. It records what the batch is about to do. Guarded by
the batch's ID.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg2.errors

from orders.order import attached_sql
from orders.order.keys_sql import Outcome
from orders.order.model import NO_DETAILS, Details, Line
from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step, any_of
from orders.stock.batch_lost_sql import RETURN_AGAIN_AFTER, named
from orders.stock.claim_sql import Due
from orders.stock.outcomes_sql import FREE_KEYS, KEEP_OUTCOMES, outcome_parameters
from orders.stock.plan import Adjustment


class Taken(Exception):
    """Another batch is placing an order for one of this batch's carts, or with one of its external references."""


_ONE_ORDER_EACH = ("orders_one_per_cart", "orders_one_per_reference")


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order as INTEND inserts it. `items` are tuples of line, name and unit price."""

    id: UUID
    customer_id: int
    cart_id: int | None
    total: int
    items: tuple[tuple[Line, str, int], ...]
    details: Details = NO_DETAILS
    channel: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it has neither details nor a channel."""
        return self.channel is None and self.details == NO_DETAILS


@dataclass(frozen=True, slots=True)
class Intent:
    """What INTEND writes.

    `changes`: each product's stock before and after. `due`: stock due back that the batch carries. `outcomes`: the
    answers that the keys of refused requests remember. `freed_keys`: keys whose requests were not decided.
    `unreadable`: products whose stock due back has to wait.
    """

    changes: Mapping[int, Adjustment]
    orders: Sequence[NewOrder]
    due: Sequence[Due]
    outcomes: dict[str, Outcome]
    freed_keys: Sequence[str]
    unreadable: Sequence[int]

    @property
    def plain(self) -> list[NewOrder]:
        """The plain orders: nearly all."""
        return [order for order in self.orders if order.is_plain]

    @property
    def described(self) -> list[NewOrder]:
        """The other orders."""
        return [order for order in self.orders if not order.is_plain]


_INTEND_STEPS = (
    Step(
        any_of("products", "bigint"),
        """
            PERFORM orders_require((
                SELECT count(*) FROM (SELECT FROM stock_claims
                    WHERE batch_id = %(batch)s::uuid AND product_id = ANY(%(products)s::bigint[])
                        AND lease_until > now()
                    ORDER BY product_id FOR UPDATE) c) = cardinality(%(products)s::bigint[]), 'the lease ran out');
            UPDATE stock_claims c
                SET before = n.before, after = n.after,
                    lands_until = c.lease_until + %(horizon)s::float8 * interval '1 s'
                FROM unnest(%(products)s::bigint[], %(before)s::bigint[], %(after)s::bigint[])
                    n(product_id, before, after)
                WHERE c.product_id = n.product_id""",
    ),
    Step(
        ALWAYS,
        "DELETE FROM stock_claims WHERE batch_id = %(batch)s AND after IS NULL",
    ),
    Step(
        any_of("due_orders", "uuid"),
        """
            UPDATE stock_returns r SET batch_id = %(batch)s
                FROM unnest(%(due_orders)s::uuid[], %(due_products)s::bigint[], %(due_numbers)s::integer[])
                    d(order_id, product_id, number)
                WHERE r.order_id = d.order_id AND r.product_id = d.product_id AND r.number = d.number""",
    ),
    Step(
        any_of("ids", "uuid"),
        """
            INSERT INTO orders (id, customer_id, status, total, cart_id, batch_id, created_at)
                SELECT id, customer_id, 'Pending', total, cart_id, %(batch)s, to_timestamp(ms / 1000::float8)
                FROM unnest(%(ids)s::uuid[], %(customers)s::bigint[], %(totals)s::bigint[], %(carts)s::bigint[],
                            %(created_ms)s::bigint[]) o(id, customer_id, total, cart_id, ms)""",
    ),
    Step(
        any_of("d_ids", "uuid"),
        f"""
            INSERT INTO orders (id, customer_id, status, total, cart_id, batch_id, created_at, channel,
                                {attached_sql.NAMES})
                SELECT id, customer_id, 'Pending', total, cart_id, %(batch)s, to_timestamp(ms / 1000::float8), channel,
                       {attached_sql.NAMES}
                FROM unnest(%(d_ids)s::uuid[], %(d_customers)s::bigint[], %(d_totals)s::bigint[], %(d_carts)s::bigint[],
                            %(d_created_ms)s::bigint[], %(d_channels)s::text[], {attached_sql.ARRAYS})
                    o(id, customer_id, total, cart_id, ms, channel, {attached_sql.NAMES})""",
    ),
    Step(
        any_of("item_orders", "uuid"),
        """
            INSERT INTO order_items (order_id, product_id, quantity, name, unit_price)
                SELECT * FROM unnest(
                    %(item_orders)s::uuid[], %(item_products)s::bigint[], %(item_quantities)s::integer[],
                    %(item_names)s::text[], %(item_prices)s::bigint[])""",
    ),
    Step(
        any_of("unreadable", "bigint"),
        f"""
            UPDATE stock_returns SET retry_at = now() + {RETURN_AGAIN_AFTER}
                WHERE product_id = ANY(%(unreadable)s::bigint[]) AND returned_at IS NULL AND batch_id IS NULL""",
    ),
    Step(
        any_of("freed", "text"),
        FREE_KEYS,
    ),
    Step(
        any_of("outcome_keys", "text"),
        KEEP_OUTCOMES,
    ),
)


INTEND = Function("intend", _INTEND_STEPS)


def intend(connection: Connection, batch: UUID, horizon_s: float, intent: Intent) -> None:
    """INTEND: write each product's before and after, and the orders as `Pending`. Claims that are not needed are
    released.

    Raises BatchLost or Taken. Then nothing was written.
    """
    orders, changes = intent.orders, intent.changes
    items = [(order.id, *item) for order in orders for item in order.items]
    parameters = {
        "batch": str(batch),
        "horizon": horizon_s,
        "products": list(changes),
        "before": [change.before for change in changes.values()],
        "after": [change.after for change in changes.values()],
        "due_orders": [str(d.order_id) for d in intent.due],
        "due_products": [d.product_id for d in intent.due],
        "due_numbers": [d.number for d in intent.due],
        **_order_parameters("", intent.plain),
        **_order_parameters("d_", intent.described),
        "d_channels": [order.channel for order in intent.described],
        **attached_sql.attached_parameters([order.details for order in intent.described]),
        "item_orders": [str(order_id) for order_id, *_ in items],
        "item_products": [line.product_id for _, line, _, _ in items],
        "item_quantities": [line.quantity for _, line, _, _ in items],
        "item_names": [name for _, _, name, _ in items],
        "item_prices": [price for _, _, _, price in items],
        "unreadable": list(intent.unreadable),
        "freed": list(intent.freed_keys),
    }
    try:
        with connection.cursor() as cursor:
            INTEND.call(cursor, {**parameters, **outcome_parameters(intent.outcomes)})
    except psycopg2.errors.UniqueViolation as error:
        if error.diag.constraint_name in _ONE_ORDER_EACH:
            raise Taken(error.diag.constraint_name) from None
        raise
    except psycopg2.Error as error:
        raise named(error) from None


def _order_parameters(prefix: str, orders: Sequence[NewOrder]) -> dict[str, Any]:
    """The parameters of new orders. `created_ms` comes from the ID, so that sorting by creation is sorting by ID (ADR
    10).
    """
    return {
        f"{prefix}ids": [str(order.id) for order in orders],
        f"{prefix}customers": [order.customer_id for order in orders],
        f"{prefix}totals": [order.total for order in orders],
        f"{prefix}carts": [order.cart_id for order in orders],
        f"{prefix}created_ms": [order.id.int >> 80 for order in orders],
    }
