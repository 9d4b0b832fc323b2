"""INTEND and SETTLE, the commits of a batch before and after its PUTs, and their undo; guarded by the batch's ID."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg2.errors

from orders.order.document_sql import ORDER_JSON
from orders.order.keys_sql import Outcome
from orders.order.model import NO_DETAILS, Author, Details, Line
from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function
from orders.stock.claim_sql import Due
from orders.stock.plan import Adjustment

_BATCH_IS_GONE = "OR001"  # raised by orders_require()


class BatchLost(Exception):
    """The batch is no longer ours: its lease ran out and a recovering replica has taken it over."""


class Taken(Exception):
    """Another batch is placing an order for one of this batch's carts, or with one of its external references."""


_ONE_ORDER_EACH = ("orders_one_per_cart", "orders_one_per_reference")


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order as INTEND writes it. `items` are (line, name, unit price)."""

    id: UUID
    customer_id: int
    cart_id: int | None
    total: int
    items: tuple[tuple[Line, str, int], ...]
    details: Details = NO_DETAILS


@dataclass(frozen=True, slots=True)
class Intent:
    """What INTEND writes: each product's change, the orders, the stock due back that is carried, the outcomes of those
    that are refused, the keys about which nothing was decided, and products whose returns have to wait.
    """

    changes: Mapping[int, Adjustment]
    orders: Sequence[NewOrder]
    due: Sequence[Due]
    outcomes: dict[str, Outcome]
    freed_keys: Sequence[str]
    unreadable: Sequence[int]

    @property
    def plain(self) -> list[NewOrder]:
        """The orders to which nothing is attached: nearly all."""
        return [order for order in self.orders if order.details == NO_DETAILS]

    @property
    def described(self) -> list[NewOrder]:
        """The others."""
        return [order for order in self.orders if order.details != NO_DETAILS]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What SETTLE writes: who is placed, who failed (and why), and what became of each product's PUT.

    `landed` includes `quiet`, the products of which an unacknowledged PUT may still land; `took` is every product of
    the batch whose PUT has landed so far, for the stock of failed orders to be queued to go back. `has_failures`: an
    order of the batch has failed, now or before; `carries_returns`: stock that was due back went along;
    `hand_over`: nobody works on the batch any more, so recovery may take what is left at once. `authors` are those of
    the placed and the failed, for their first events.
    """

    placed: Sequence[UUID] = ()
    failed: dict[UUID, str] = field(default_factory=dict)
    landed: Sequence[int] = ()
    quiet: Sequence[int] = ()
    refused: Sequence[int] = ()
    took: Sequence[int] = ()
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    keys_of_placed: dict[UUID, str] = field(default_factory=dict)
    freed_keys: Sequence[str] = ()
    has_failures: bool = False
    carries_returns: bool = False
    hand_over: bool = False
    authors: dict[UUID, Author] = field(default_factory=dict)

    @property
    def ended(self) -> list[int]:
        """The products whose claims end, whatever became of them."""
        return [*self.landed, *self.refused]


_RETURN_AGAIN_AFTER = "interval '5 s'"
_CLOSE_AGAIN_AFTER = "interval '5 s'"  # the replica that placed the order closes its cart at once, unless it dies

_FREE_KEYS = """
    DELETE FROM idempotency_keys WHERE batch_id = %(batch)s AND status IS NULL AND key = ANY(%(freed)s::text[])
"""

_KEEP_OUTCOMES = """
    UPDATE idempotency_keys k SET status = n.status, body = n.body
        FROM unnest(%(outcome_keys)s::text[], %(outcome_statuses)s::smallint[], %(outcome_bodies)s::text[])
            n(key, status, body)
        WHERE k.key = n.key AND k.batch_id = %(batch)s AND k.status IS NULL
"""


_INTEND_STEPS = (
    (
        "products",
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
    (ALWAYS, "DELETE FROM stock_claims WHERE batch_id = %(batch)s AND after IS NULL"),
    (
        "due_orders",
        """
            UPDATE stock_returns r SET batch_id = %(batch)s
                FROM unnest(%(due_orders)s::uuid[], %(due_products)s::bigint[], %(due_numbers)s::integer[])
                    d(order_id, product_id, number)
                WHERE r.order_id = d.order_id AND r.product_id = d.product_id AND r.number = d.number""",
    ),
    (
        "ids",
        """
            INSERT INTO orders (id, customer_id, status, total, cart_id, batch_id, created_at)
                SELECT id, customer_id, 'Pending', total, cart_id, %(batch)s, to_timestamp(ms / 1000::float8)
                FROM unnest(%(ids)s::uuid[], %(customers)s::bigint[], %(totals)s::bigint[], %(carts)s::bigint[],
                            %(created_ms)s::bigint[]) o(id, customer_id, total, cart_id, ms)""",
    ),
    (
        "d_ids",
        """
            INSERT INTO orders (id, customer_id, status, total, cart_id, batch_id, created_at,
                                external_reference, metadata, public_note, private_note)
                SELECT id, customer_id, 'Pending', total, cart_id, %(batch)s, to_timestamp(ms / 1000::float8),
                       reference, metadata, public_note, private_note
                FROM unnest(%(d_ids)s::uuid[], %(d_customers)s::bigint[], %(d_totals)s::bigint[], %(d_carts)s::bigint[],
                            %(d_created_ms)s::bigint[], %(references)s::text[], %(metadata)s::jsonb[],
                            %(public)s::text[], %(private)s::text[])
                    o(id, customer_id, total, cart_id, ms, reference, metadata, public_note, private_note)""",
    ),
    (
        "item_orders",
        """
            INSERT INTO order_items (order_id, product_id, quantity, name, unit_price)
                SELECT * FROM unnest(
                    %(item_orders)s::uuid[], %(item_products)s::bigint[], %(item_quantities)s::integer[],
                    %(item_names)s::text[], %(item_prices)s::bigint[])""",
    ),
    (
        "unreadable",
        f"""
            UPDATE stock_returns SET retry_at = now() + {_RETURN_AGAIN_AFTER}
                WHERE product_id = ANY(%(unreadable)s::bigint[]) AND returned_at IS NULL AND batch_id IS NULL""",
    ),
    ("freed", _FREE_KEYS),
    ("outcome_keys", _KEEP_OUTCOMES),
)
INTEND = Function("intend", _INTEND_STEPS)


FAIL = """
    failed AS (
        UPDATE orders SET status = 'Failed', failure = 'order_failed', updated_at = now()
        WHERE batch_id = %(batch)s AND status = 'Pending' RETURNING id),
    events AS (
        INSERT INTO order_events (order_id, number, type, before, after, actor, reason)
        SELECT id, 1, 'failed', '{"status": "Pending"}', '{"status": "Failed"}', 'recovery', 'order_failed'
        FROM failed)
"""
"""The orders of a batch that will not be placed, and their events."""


def intend(connection: Connection, batch: UUID, horizon_s: float, intent: Intent) -> None:
    """INTEND: before and after of each product, and the orders as `Pending`. Claims that nobody needs are given up.

    Raises BatchLost or Taken; then nothing was written.
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
        "references": [order.details.external_reference for order in intent.described],
        "metadata": [order.details.metadata for order in intent.described],
        "public": [order.details.public_note for order in intent.described],
        "private": [order.details.private_note for order in intent.described],
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
            INTEND.call(cursor, {**parameters, **_outcome_parameters(intent.outcomes)})
    except psycopg2.errors.UniqueViolation as error:
        if error.diag.constraint_name in _ONE_ORDER_EACH:
            raise Taken(error.diag.constraint_name) from None
        raise
    except psycopg2.Error as error:
        raise _named(error) from None


def _order_parameters(prefix: str, orders: Sequence[NewOrder]) -> dict[str, Any]:
    """`created_ms` is in the ID, so that a list by creation is a list by ID (ADR 10)."""
    return {
        f"{prefix}ids": [str(order.id) for order in orders],
        f"{prefix}customers": [order.customer_id for order in orders],
        f"{prefix}totals": [order.total for order in orders],
        f"{prefix}carts": [order.cart_id for order in orders],
        f"{prefix}created_ms": [order.id.int >> 80 for order in orders],
    }


_SETTLE_STEPS = (
    (
        ALWAYS,
        """
            PERFORM orders_require((
                SELECT count(*) FROM (SELECT FROM stock_claims
                    WHERE batch_id = %(batch)s::uuid AND product_id = ANY(%(ended)s::bigint[])
                    ORDER BY product_id FOR UPDATE) c)
                = cardinality(%(ended)s::bigint[]) AND (
                SELECT count(*) FROM (SELECT FROM orders
                    WHERE batch_id = %(batch)s AND status = 'Pending' AND id = ANY(%(decided)s::uuid[]) FOR UPDATE) o)
                = cardinality(%(decided)s::uuid[]), 'the batch was taken over')""",
    ),
    (
        "placed",
        f"""
            UPDATE orders SET status = 'Ordered', placed_at = now(), updated_at = now()
                WHERE id = ANY(%(placed)s::uuid[]);
            INSERT INTO cart_closings (order_id, customer_id, cart_id, retry_at)
                SELECT id, customer_id, cart_id, now() + {_CLOSE_AGAIN_AFTER} FROM orders
                WHERE id = ANY(%(placed)s::uuid[])""",
    ),
    (
        "failed",
        """
            UPDATE orders o SET status = 'Failed', failure = f.failure, updated_at = now()
                FROM unnest(%(failed)s::uuid[], %(failures)s::text[]) f(id, failure) WHERE o.id = f.id""",
    ),
    (
        "author_of",
        """
            INSERT INTO order_events (order_id, number, type, before, after, actor, reason, request_id)
                SELECT id, 1, CASE WHEN reason IS NULL THEN 'placed' ELSE 'failed' END, '{"status": "Pending"}',
                       CASE WHEN reason IS NULL THEN '{"status": "Ordered"}' ELSE '{"status": "Failed"}' END::jsonb,
                       actor, reason, request_id
                FROM unnest(%(author_of)s::uuid[], %(actors)s::text[], %(reasons)s::text[], %(requests)s::text[])
                    e(id, actor, reason, request_id)""",
    ),
    (
        "has_failures",
        """
            INSERT INTO stock_returns (order_id, product_id, quantity)
                SELECT i.order_id, i.product_id, i.quantity FROM orders o JOIN order_items i ON i.order_id = o.id
                WHERE o.batch_id = %(batch)s AND o.status = 'Failed' AND i.product_id = ANY(%(took)s::bigint[])
                ON CONFLICT DO NOTHING""",
    ),
    (
        "carries_returns",
        f"""
            UPDATE stock_returns SET returned_at = now()
                WHERE batch_id = %(batch)s AND product_id = ANY(%(landed)s::bigint[]) AND returned_at IS NULL;
            UPDATE stock_returns SET batch_id = NULL, retry_at = now() + {_RETURN_AGAIN_AFTER}
                WHERE batch_id = %(batch)s AND product_id = ANY(%(refused)s::bigint[]) AND returned_at IS NULL""",
    ),
    (
        "quiet",
        """
            INSERT INTO stock_record (product_id, batch_id, kind, before, after)
                SELECT product_id, batch_id, CASE WHEN is_correction THEN 'corrected' ELSE 'moved' END, before, after
                FROM stock_claims WHERE batch_id = %(batch)s AND product_id = ANY(%(quiet)s::bigint[]);
            UPDATE stock_claims SET batch_id = NULL, lease_until = NULL, before = NULL, after = NULL,
                                    is_correction = false, lands_until = now() + %(horizon)s::float8 * interval '1 s'
                WHERE batch_id = %(batch)s AND product_id = ANY(%(quiet)s::bigint[])""",
    ),
    (
        "ended",
        """
            WITH ended AS (
                DELETE FROM stock_claims WHERE batch_id = %(batch)s AND product_id = ANY(%(ended)s::bigint[])
                RETURNING product_id, is_correction, before, after)
            INSERT INTO stock_record (product_id, batch_id, kind, before, after)
                SELECT product_id, %(batch)s, CASE WHEN is_correction THEN 'corrected' ELSE 'moved' END, before, after
                FROM ended WHERE product_id = ANY(%(landed)s::bigint[]) AND before <> after""",
    ),
    (
        "hand_over",
        """
            UPDATE stock_claims SET lease_until = now(), lands_until = now() + %(horizon)s * interval '1 s'
                WHERE batch_id = %(batch)s""",
    ),
    (
        "key_orders",
        f"""
            UPDATE idempotency_keys k SET status = 201, body = {ORDER_JSON}, order_id = o.id
                FROM unnest(%(key_orders)s::uuid[], %(order_keys)s::text[]) n(id, key) JOIN orders o USING (id)
                WHERE k.key = n.key""",
    ),
    ("outcome_keys", _KEEP_OUTCOMES),
    ("freed", _FREE_KEYS),
    ("placed", f"RETURN QUERY SELECT o.id, {ORDER_JSON} FROM orders o WHERE o.id = ANY(%(placed)s::uuid[])"),
)
SETTLE = Function("settle", _SETTLE_STEPS, rows="id uuid, document text")


def settle(connection: Connection, batch: UUID, horizon_s: float, verdict: Verdict) -> dict[UUID, str]:
    """SETTLE: the orders become `Ordered` or `Failed`, claims end, stock of the failed is queued to go back.

    Returns the JSON of the placed. Raises BatchLost; then nothing was written.
    """
    parameters = {
        "batch": str(batch),
        "horizon": horizon_s,
        "ended": verdict.ended,
        "decided": [str(i) for i in (*verdict.placed, *verdict.failed)],
        "placed": [str(i) for i in verdict.placed],
        "failed": [str(i) for i in verdict.failed],
        "failures": list(verdict.failed.values()),
        "took": list(verdict.took),
        "landed": list(verdict.landed),
        "refused": list(verdict.refused),
        "quiet": list(verdict.quiet),
        "freed": list(verdict.freed_keys),
        "key_orders": [str(i) for i in verdict.keys_of_placed],
        "order_keys": list(verdict.keys_of_placed.values()),
        "author_of": [str(i) for i in verdict.authors],
        "actors": [author.actor for author in verdict.authors.values()],
        "reasons": [verdict.failed.get(i) for i in verdict.authors],
        "has_failures": verdict.has_failures,
        "carries_returns": verdict.carries_returns,
        "hand_over": verdict.hand_over,
        "requests": [author.request_id for author in verdict.authors.values()],
    }
    try:
        with connection.cursor() as cursor:
            SETTLE.call(cursor, {**parameters, **_outcome_parameters(verdict.outcomes)})
            return {UUID(order_id): document for order_id, document in cursor}
    except psycopg2.Error as error:
        raise _named(error) from None


def read_placed(connection: Connection, batch: UUID, ids: Sequence[UUID]) -> dict[UUID, str]:
    """The JSON of those of these orders that this batch has placed: what a SETTLE of unknown outcome has done."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT o.id, {ORDER_JSON} FROM orders o
                WHERE o.id = ANY(%s::uuid[]) AND o.batch_id = %s AND o.placed_at IS NOT NULL""",
            ([str(order_id) for order_id in ids], str(batch)),
        )
        return {UUID(order_id): document for order_id, document in cursor}


def abandon(connection: Connection, batch: UUID, outcomes: dict[str, Outcome]) -> None:
    """Undo CLAIM and INTEND of a batch that has sent nothing. Safe to repeat; does nothing to a batch that is gone."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            -- First of all: an INTEND whose answer was lost may still be running. It holds these rows; then it is done.
            SELECT FROM stock_claims WHERE batch_id = %(batch)s ORDER BY product_id FOR UPDATE;
            {_KEEP_OUTCOMES};
            DELETE FROM idempotency_keys WHERE batch_id = %(batch)s AND status IS NULL;
            UPDATE stock_returns SET batch_id = NULL WHERE batch_id = %(batch)s AND returned_at IS NULL;
            WITH {FAIL}
            SELECT FROM failed;
            DELETE FROM stock_claims WHERE batch_id = %(batch)s
            """,
            {"batch": str(batch), **_outcome_parameters(outcomes)},
        )


def keep_outcomes(connection: Connection, batch: UUID, outcomes: dict[str, Outcome]) -> bool:
    """Remember the outcomes of requests that the batch goes on without; False: a key is not the batch's any more."""
    with connection.cursor() as cursor:
        cursor.execute(_KEEP_OUTCOMES, {"batch": str(batch), **_outcome_parameters(outcomes)})
        return cursor.rowcount == len(outcomes)


def _outcome_parameters(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    return {
        "outcome_keys": list(outcomes),
        "outcome_statuses": [outcome.status for outcome in outcomes.values()],
        "outcome_bodies": [outcome.body for outcome in outcomes.values()],
    }


def _named(error: psycopg2.Error) -> Exception:
    return BatchLost(str(error.diag.message_primary)) if error.pgcode == _BATCH_IS_GONE else error
