"""CLAIM: the batch that has a product's row in `stock_claims` may write its stock. Also how claims are released."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from orders.order.document import Document
from orders.order.document_sql import order_json
from orders.order.keys_sql import KeyInUse, keys_in_use
from orders.order.seer_sql import is_seen_by, seer_values
from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step, any_of
from orders.principal import Seer


@dataclass(frozen=True, slots=True)
class CartOrder:
    """The order that a cart has become, with the document for who asked. While `is_placed` is False, the order is still
    being placed.
    """

    order_id: UUID
    is_placed: bool
    channel: str | None
    document: Document


@dataclass(frozen=True, slots=True)
class ReferenceOrder:
    """The order that has an external reference. While `is_placed` is False, the order is still being placed."""

    order_id: UUID
    is_placed: bool
    customer_id: int
    channel: str | None


@dataclass(frozen=True, slots=True)
class Due:
    """Stock that is due back to the catalog: a row of `stock_returns`."""

    order_id: UUID
    product_id: int
    number: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """What CLAIM got, and what prevented the rest."""

    products: frozenset[int]
    keys: frozenset[str]
    keys_in_use: dict[str, KeyInUse]
    cart_orders: dict[tuple[int, int], CartOrder]
    due: tuple[Due, ...]
    references: dict[str, ReferenceOrder] = field(default_factory=dict)


_CLAIM_STEPS = (
    Step(
        any_of("keys", "text"),
        """
            INSERT INTO idempotency_keys (key, fingerprint, batch_id)
                SELECT key, fingerprint, %(batch)s
                FROM unnest(%(keys)s::text[], %(prints)s::bytea[]) k(key, fingerprint)
                ORDER BY key ON CONFLICT DO NOTHING""",
    ),
    Step(
        ALWAYS,
        """
            INSERT INTO stock_claims (product_id, batch_id, lease_until)
                SELECT product_id, %(batch)s::uuid, now() + %(lease)s::float8 * interval '1 s'
                FROM unnest(%(products)s::bigint[]) product_id ORDER BY product_id ON CONFLICT DO NOTHING;
            RETURN QUERY SELECT
                (SELECT array_agg(product_id) FROM stock_claims WHERE batch_id = %(batch)s),
                (SELECT array_agg(key) FROM idempotency_keys WHERE batch_id = %(batch)s AND status IS NULL),
                (SELECT json_agg(json_build_array(r.order_id, r.product_id, r.number, r.quantity))
                 FROM stock_returns r
                 WHERE r.product_id = ANY(%(products)s::bigint[]) AND r.returned_at IS NULL AND r.batch_id IS NULL)""",
    ),
)
CLAIM = Function("claim", _CLAIM_STEPS, rows="products bigint[], keys text[], due json")

_END_QUIET_TIMES = """
    DELETE FROM stock_claims WHERE product_id IN (
        SELECT product_id FROM stock_claims
        WHERE product_id = ANY(%(products)s::bigint[]) AND batch_id IS NULL AND lands_until < now()
        ORDER BY product_id FOR UPDATE)
"""


def claim(
    connection: Connection,
    batch: UUID,
    lease_s: float,
    products: Sequence[int],
    keys: dict[str, bytes],
    carts: Mapping[tuple[int, int], Seer],
    references: Sequence[str] = (),
) -> Claimed:
    """CLAIM: insert a row per product and per key, except for those that are taken. A product whose quarantine has
    ended is free. `carts` says who asks for each of them.
    """
    parameters = {
        "batch": str(batch),
        "lease": lease_s,
        "products": list(products),
        "keys": list(keys),
        "prints": list(keys.values()),
    }
    with connection.cursor() as cursor:
        CLAIM.call(cursor, parameters)
        row: Any = cursor.fetchone()
        # only then: looking for ended quarantines each time was a quarter of CLAIM's cost
        if len(row[0] or ()) < len(products):
            cursor.execute(_END_QUIET_TIMES, parameters)
            if cursor.rowcount:
                CLAIM.call(cursor, parameters)
                row = cursor.fetchone()
    got, keys_got, due = row
    of_ours = (Due(UUID(order_id), *row) for order_id, *row in due or ())
    known = [key for key in keys if key not in (keys_got or [])]
    return Claimed(
        products=frozenset(got or ()),
        keys=frozenset(keys_got or ()),
        keys_in_use=keys_in_use(connection, known) if known else {},
        cart_orders=_cart_orders(connection, carts) if carts else {},
        due=tuple(d for d in of_ours if d.product_id in (got or ())),
        references=reference_orders(connection, references) if references else {},
    )


def look(
    connection: Connection, products: Sequence[int], carts: Mapping[tuple[int, int], Seer], references: Sequence[str]
) -> Claimed:
    """What CLAIM would return if all of these products were free. Nothing is claimed."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT order_id, product_id, number, quantity FROM stock_returns
               WHERE product_id = ANY(%s::bigint[]) AND returned_at IS NULL AND batch_id IS NULL""",
            (list(products),),
        )
        due = tuple(Due(UUID(order_id), *row) for order_id, *row in cursor)
    cart_orders = _cart_orders(connection, carts) if carts else {}
    taken = reference_orders(connection, references) if references else {}
    return Claimed(frozenset(products), frozenset(), {}, cart_orders, due, taken)


def reference_orders(connection: Connection, references: Sequence[str]) -> dict[str, ReferenceOrder]:
    """The orders that have these external references. A failed order has lost its reference."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT external_reference, id, status <> 'Pending' OR adopted, customer_id, channel FROM orders
               WHERE external_reference = ANY(%s::text[]) AND (status <> 'Failed' OR adopted)""",
            (list(references),),
        )
        return {
            reference: ReferenceOrder(UUID(order_id), placed, customer_id, channel)
            for reference, order_id, placed, customer_id, channel in cursor
        }


def other_order_of_customer(connection: Connection, seer: Seer, order_id: UUID, reference: str) -> UUID | None:
    """The order with this reference, if it belongs to the same customer as this order and the seer sees it, or None."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT o.id FROM orders ours JOIN orders o USING (customer_id)
                WHERE ours.id = %(id)s AND o.external_reference = %(reference)s
                  AND (o.status <> 'Failed' OR o.adopted) AND {is_seen_by(seer)}""",
            {"id": str(order_id), "reference": reference, **seer_values(seer)},
        )
        row = cursor.fetchone()
        return UUID(row[0]) if row else None


def _cart_orders(connection: Connection, carts: Mapping[tuple[int, int], Seer]) -> dict[tuple[int, int], CartOrder]:
    """The orders that these carts have become, whoever sees them."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT o.customer_id, o.cart_id, o.id, o.status <> 'Pending', o.channel, o.version,
                       {order_json("c.sees_private")}
                FROM unnest(%(customers)s::bigint[], %(carts)s::bigint[], %(see_private)s::boolean[])
                    c(customer_id, cart_id, sees_private)
                JOIN orders o USING (customer_id, cart_id) WHERE o.status <> 'Failed'""",
            {
                "customers": [c for c, _ in carts],
                "carts": [c for _, c in carts],
                "see_private": [seer.sees_private for seer in carts.values()],
            },
        )
        return {
            (customer_id, cart_id): CartOrder(UUID(order_id), is_placed, channel, Document(version, json))
            for customer_id, cart_id, order_id, is_placed, channel, version, json in cursor
        }


def order_of_cart(
    connection: Connection, seer: Seer, customer_id: int, cart_id: int | None, within_s: float
) -> CartOrder | None:
    """The placed order that this cart has become, or None. An order that the seer does not see is none.

    If the cart's ID is unknown (None), it is the customer's newest order of a cart, if that was placed within the last
    `within_s` seconds.
    """
    if cart_id is not None:
        order = _cart_orders(connection, {(customer_id, cart_id): seer}).get((customer_id, cart_id))
        return order if order and order.is_placed and seer.sees(customer_id, order.channel) else None
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT o.id, o.channel, o.version, {order_json("%(sees_private)s")} FROM orders o
                WHERE o.customer_id = %(customer)s AND o.cart_id IS NOT NULL
                  AND o.placed_at > now() - %(within)s * interval '1 s' AND {is_seen_by(seer)}
                ORDER BY o.id DESC LIMIT 1""",
            {"customer": customer_id, "within": within_s, **seer_values(seer)},
        )
        row = cursor.fetchone()
        return CartOrder(UUID(row[0]), True, row[1], Document(row[2], row[3])) if row else None


def release(connection: Connection, batch: UUID, products: Iterable[int], keys: Iterable[str]) -> None:
    """Undo CLAIM for these products and keys. Nothing was sent for them."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            DELETE FROM stock_claims
                WHERE batch_id = %(batch)s AND after IS NULL AND product_id = ANY(%(products)s::bigint[]);
            DELETE FROM idempotency_keys WHERE batch_id = %(batch)s AND status IS NULL AND key = ANY(%(keys)s::text[])
            """,
            {"batch": str(batch), "products": list(products), "keys": list(keys)},
        )
