"""SETTLE: the commit of a batch after its PUTs. It records what became of them. Guarded by the batch's ID."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import psycopg2.errors

from orders.order.document import Document
from orders.order.document_sql import ORDER_JSON
from orders.order.events import EventType
from orders.order.keys_sql import Outcome
from orders.order.model import Author
from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step, any_of, is_true
from orders.stock.batch_lost_sql import RETURN_AGAIN_AFTER, named
from orders.stock.outcomes_sql import FREE_KEYS, KEEP_OUTCOMES, outcome_parameters


@dataclass(frozen=True, slots=True)
class Settlement:
    """What SETTLE writes: the orders that are placed or failed (and why), and what became of each product's PUT.

    `landed` includes `quiet`: products in quarantine, as an unacknowledged PUT may still land. `took`: all products of
    the batch whose PUT has landed so far; their stock goes back if the order failed. `has_failures`: an order of the
    batch has failed, now or before. `carries_due`: the batch carried stock that was due back. `hand_over`: the batch is
    given up, so recovery may take the rest at once. `authors`: the authors of placed and failed orders, for their first
    events.
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
    carries_due: bool = False
    hand_over: bool = False
    authors: dict[UUID, Author] = field(default_factory=dict)

    @property
    def ended(self) -> list[int]:
        """The products whose claims end, with either outcome."""
        return [*self.landed, *self.refused]


_CLOSE_AGAIN_AFTER = "interval '5 s'"  # the replica that placed the order closes its cart at once, unless it dies


_SETTLE_STEPS = (
    Step(
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
    Step(
        any_of("placed", "uuid"),
        f"""
            UPDATE orders SET status = 'Ordered', placed_at = now(), updated_at = now()
                WHERE id = ANY(%(placed)s::uuid[]);
            INSERT INTO cart_closings (order_id, customer_id, cart_id, retry_at)
                SELECT id, customer_id, cart_id, now() + {_CLOSE_AGAIN_AFTER} FROM orders
                WHERE id = ANY(%(placed)s::uuid[])""",
    ),
    Step(
        any_of("failed", "uuid"),
        """
            UPDATE orders o SET status = 'Failed', failure = f.failure, updated_at = now()
                FROM unnest(%(failed)s::uuid[], %(failures)s::text[]) f(id, failure) WHERE o.id = f.id""",
    ),
    Step(
        any_of("author_of", "uuid"),
        f"""
            INSERT INTO order_events (order_id, number, type, before, after, actor, reason, request_id)
                SELECT id, 1, CASE WHEN reason IS NULL THEN '{EventType.PLACED}' ELSE '{EventType.FAILED}' END,
                       '{{"status": "Pending"}}',
                       CASE WHEN reason IS NULL THEN '{{"status": "Ordered"}}' ELSE '{{"status": "Failed"}}' END::jsonb,
                       actor, reason, request_id
                FROM unnest(%(author_of)s::uuid[], %(actors)s::text[], %(reasons)s::text[], %(requests)s::text[])
                    e(id, actor, reason, request_id)""",
    ),
    Step(
        is_true("has_failures"),
        """
            INSERT INTO stock_returns (order_id, product_id, quantity)
                SELECT i.order_id, i.product_id, i.quantity FROM orders o JOIN order_items i ON i.order_id = o.id
                WHERE o.batch_id = %(batch)s AND o.status = 'Failed' AND i.product_id = ANY(%(took)s::bigint[])
                ON CONFLICT DO NOTHING""",
    ),
    Step(
        is_true("carries_due"),
        f"""
            UPDATE stock_returns SET returned_at = now()
                WHERE batch_id = %(batch)s AND product_id = ANY(%(landed)s::bigint[]) AND returned_at IS NULL;
            UPDATE stock_returns SET batch_id = NULL, retry_at = now() + {RETURN_AGAIN_AFTER}
                WHERE batch_id = %(batch)s AND product_id = ANY(%(refused)s::bigint[]) AND returned_at IS NULL""",
    ),
    Step(
        any_of("quiet", "bigint"),
        """
            INSERT INTO stock_record (product_id, batch_id, kind, before, after)
                SELECT product_id, batch_id, CASE WHEN is_correction THEN 'corrected' ELSE 'moved' END, before, after
                FROM stock_claims WHERE batch_id = %(batch)s AND product_id = ANY(%(quiet)s::bigint[]);
            UPDATE stock_claims SET batch_id = NULL, lease_until = NULL, before = NULL, after = NULL,
                                    is_correction = false, lands_until = now() + %(horizon)s::float8 * interval '1 s'
                WHERE batch_id = %(batch)s AND product_id = ANY(%(quiet)s::bigint[])""",
    ),
    Step(
        any_of("ended", "bigint"),
        """
            WITH ended AS (
                DELETE FROM stock_claims WHERE batch_id = %(batch)s AND product_id = ANY(%(ended)s::bigint[])
                RETURNING product_id, is_correction, before, after)
            INSERT INTO stock_record (product_id, batch_id, kind, before, after)
                SELECT product_id, %(batch)s, CASE WHEN is_correction THEN 'corrected' ELSE 'moved' END, before, after
                FROM ended WHERE product_id = ANY(%(landed)s::bigint[]) AND before <> after""",
    ),
    Step(
        is_true("hand_over"),
        """
            UPDATE stock_claims SET lease_until = now(), lands_until = now() + %(horizon)s * interval '1 s'
                WHERE batch_id = %(batch)s""",
    ),
    Step(
        any_of("key_orders", "uuid"),
        f"""
            UPDATE idempotency_keys k SET status = 201, body = {ORDER_JSON}, order_id = o.id
                FROM unnest(%(key_orders)s::uuid[], %(order_keys)s::text[]) n(id, key) JOIN orders o USING (id)
                WHERE k.key = n.key""",
    ),
    Step(
        any_of("outcome_keys", "text"),
        KEEP_OUTCOMES,
    ),
    Step(
        any_of("freed", "text"),
        FREE_KEYS,
    ),
    Step(
        any_of("placed", "uuid"),
        f"RETURN QUERY SELECT o.id, o.version, {ORDER_JSON} FROM orders o WHERE o.id = ANY(%(placed)s::uuid[])",
    ),
)


SETTLE = Function("settle", _SETTLE_STEPS, rows="id uuid, version integer, document text")


def settle(connection: Connection, batch: UUID, horizon_s: float, settlement: Settlement) -> dict[UUID, Document]:
    """SETTLE: the orders become `Ordered` or `Failed`, claims end, and the stock of failed orders is queued to go back.

    Returns the placed orders. Raises BatchLost. Then nothing was written.
    """
    parameters = {
        "batch": str(batch),
        "horizon": horizon_s,
        "ended": settlement.ended,
        "decided": [str(i) for i in (*settlement.placed, *settlement.failed)],
        "placed": [str(i) for i in settlement.placed],
        "failed": [str(i) for i in settlement.failed],
        "failures": list(settlement.failed.values()),
        "took": list(settlement.took),
        "landed": list(settlement.landed),
        "refused": list(settlement.refused),
        "quiet": list(settlement.quiet),
        "freed": list(settlement.freed_keys),
        "key_orders": [str(i) for i in settlement.keys_of_placed],
        "order_keys": list(settlement.keys_of_placed.values()),
        "author_of": [str(i) for i in settlement.authors],
        "actors": [author.actor for author in settlement.authors.values()],
        "reasons": [settlement.failed.get(i) for i in settlement.authors],
        "has_failures": settlement.has_failures,
        "carries_due": settlement.carries_due,
        "hand_over": settlement.hand_over,
        "requests": [author.request_id for author in settlement.authors.values()],
    }
    try:
        with connection.cursor() as cursor:
            SETTLE.call(cursor, {**parameters, **outcome_parameters(settlement.outcomes)})
            return {UUID(order_id): Document(version, json) for order_id, version, json in cursor}
    except psycopg2.Error as error:
        raise named(error) from None


def read_placed(connection: Connection, batch: UUID, ids: Sequence[UUID]) -> dict[UUID, Document]:
    """Those of these orders that this batch has placed. Tells what a SETTLE of unknown outcome has done."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT o.id, o.version, {ORDER_JSON} FROM orders o
                WHERE o.id = ANY(%s::uuid[]) AND o.batch_id = %s AND o.placed_at IS NOT NULL""",
            ([str(order_id) for order_id in ids], str(batch)),
        )
        return {UUID(order_id): Document(version, json) for order_id, version, json in cursor}
