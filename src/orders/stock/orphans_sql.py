"""Recovery's SQL: takes over a dead replica's batches, ends their claims, and finds durable work that is due."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from orders.postgres.database import Connection
from orders.postgres.rows import named_rows
from orders.stock.abandon_sql import FAIL


@dataclass(frozen=True, slots=True)
class Orphan:
    """A claim whose intent was written and whose outcome is unknown. `may_land`: an unacknowledged PUT
    may still land.
    """

    product_id: int
    before: int
    after: int
    may_land: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome of orphans. `drifted` maps a product to the stock that was found, or to None if the
    product is gone.
    """

    landed: Sequence[int] = ()
    refused: Sequence[int] = ()
    drifted: dict[int, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A product whose stock needs a person's attention. `kind` is "in doubt", "not taken back" or "drifted"."""

    product_id: int
    kind: str
    since: str


def troubles(connection: Connection) -> list[Trouble]:
    """Claims that could not be ended for a minute, stock that waits a minute to go back, and drifts that no person has
    looked at.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT product_id, kind, to_char(t.since, 'YYYY-MM-DD HH24:MI:SS OF') AS since FROM (
                SELECT product_id, 'in doubt' AS kind, lands_until AS since FROM stock_claims
                WHERE after IS NOT NULL AND lands_until < now() - interval '1 min'
                UNION ALL
                SELECT product_id, 'not taken back', min(queued_at) FROM stock_returns
                WHERE returned_at IS NULL AND queued_at < now() - interval '1 min' GROUP BY product_id
                UNION ALL
                SELECT product_id, 'drifted', max(noted_at) FROM stock_record d
                WHERE kind = 'in doubt' AND NOT EXISTS (
                    SELECT FROM stock_record p WHERE p.product_id = d.product_id AND p.id > d.id
                    AND p.kind IN ('corrected', 'accepted')) GROUP BY product_id) t
            ORDER BY t.since LIMIT 100
            """
        )
        return [Trouble(**row) for row in named_rows(cursor)]


def dead_batches(connection: Connection, limit: int) -> list[UUID]:
    """Batches with claims whose lease has run out, the longest dead first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT batch_id FROM stock_claims WHERE lease_until < now()
               GROUP BY batch_id ORDER BY min(lease_until) LIMIT %s""",
            (limit,),
        )
        return [UUID(batch) for (batch,) in cursor]


def take_over(connection: Connection, dead: UUID, batch: UUID, lease_s: float) -> list[Orphan]:
    """Give the dead batch's rows a new batch ID and lease. The dead replica's SETTLE then matches nothing.

    Its `Pending` orders fail at once, because nobody was told 201. If a product of theirs has no claim any more, its
    PUT had landed, and that stock is queued to go back. Claims without an intent are deleted, because nothing was sent.

    Returns the other claims, or nothing if another replica was first. Safe to repeat.
    """
    parameters = {"dead": str(dead), "batch": str(batch), "lease": lease_s}
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE stock_claims SET batch_id = %(batch)s, lease_until = now() + %(lease)s * interval '1 s'
                WHERE batch_id = %(dead)s AND lease_until < now();
            DELETE FROM idempotency_keys WHERE batch_id = %(dead)s AND status IS NULL
                AND EXISTS (SELECT FROM stock_claims WHERE batch_id = %(batch)s);
            UPDATE stock_returns SET batch_id = %(batch)s WHERE batch_id = %(dead)s AND returned_at IS NULL
                AND EXISTS (SELECT FROM stock_claims WHERE batch_id = %(batch)s);
            UPDATE orders SET batch_id = %(batch)s WHERE batch_id = %(dead)s AND status IN ('Pending', 'Failed')
                AND EXISTS (SELECT FROM stock_claims WHERE batch_id = %(batch)s);
            WITH {FAIL}
            INSERT INTO stock_returns (order_id, product_id, quantity)
                SELECT order_id, product_id, quantity FROM order_items i JOIN failed ON order_id = failed.id
                WHERE NOT EXISTS (SELECT FROM stock_claims c
                                  WHERE c.batch_id = %(batch)s AND c.product_id = i.product_id);
            DELETE FROM stock_claims WHERE batch_id = %(batch)s AND after IS NULL;
            SELECT product_id, before, after, lands_until > now() AS may_land
                FROM stock_claims WHERE batch_id = %(batch)s
            """,
            parameters,
        )
        return [Orphan(**row) for row in named_rows(cursor)]


def intend_again(connection: Connection, batch: UUID, horizon_s: float, products: Sequence[int]) -> None:
    """Commit before the same value is PUT once more: that PUT may land as late as the lease plus the horizon."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE stock_claims SET lands_until = lease_until + %s * interval '1 s'
               WHERE batch_id = %s AND product_id = ANY(%s::bigint[])""",
            (horizon_s, str(batch), list(products)),
        )


_END_CLAIMS = """
    WITH held AS (
        SELECT product_id FROM stock_claims
        WHERE batch_id = %(batch)s AND product_id = ANY(%(landed)s::bigint[])
        ORDER BY product_id FOR UPDATE)
    INSERT INTO stock_returns (order_id, product_id, quantity)
        SELECT o.id, i.product_id, i.quantity
        FROM orders o JOIN order_items i ON i.order_id = o.id JOIN held ON held.product_id = i.product_id
        WHERE o.batch_id = %(batch)s AND o.status = 'Failed' ON CONFLICT DO NOTHING;
    INSERT INTO stock_record (product_id, batch_id, kind, before, after, found)
        SELECT product_id, batch_id,
               CASE WHEN d.product_id IS NOT NULL THEN 'in doubt'
                    WHEN is_correction THEN 'corrected' ELSE 'moved' END, before, after, d.found
        FROM stock_claims c
        LEFT JOIN unnest(%(drifted)s::bigint[], %(found)s::bigint[]) d(product_id, found) USING (product_id)
        WHERE batch_id = %(batch)s AND product_id = ANY(%(landed)s::bigint[] || %(drifted)s::bigint[])
          AND (before <> after OR d.product_id IS NOT NULL);
    UPDATE stock_returns SET returned_at = now()
        WHERE batch_id = %(batch)s AND returned_at IS NULL
          AND product_id = ANY(%(landed)s::bigint[] || %(drifted)s::bigint[]);
    UPDATE stock_returns SET batch_id = NULL, retry_at = now() + interval '5 s'
        WHERE batch_id = %(batch)s AND returned_at IS NULL AND product_id = ANY(%(refused)s::bigint[]);
    UPDATE stock_claims SET batch_id = NULL, lease_until = NULL, before = NULL, after = NULL,
                            is_correction = false,
                            lands_until = least(lands_until, now() + %(horizon)s * interval '1 s')
        WHERE batch_id = %(batch)s
          AND product_id = ANY(%(landed)s::bigint[] || %(refused)s::bigint[] || %(drifted)s::bigint[]);
"""


def end_claims(connection: Connection, batch: UUID, horizon_s: float, ended: Ended) -> None:
    """End these claims, as far as the batch still has them. Stock that landed for failed orders is queued to go back.

    A product that drifted counts as not landed for its orders, and as landed for stock that was due back. That may
    understate the stock, and never oversells. The claims stay in quarantine until no PUT can land any more. That is at
    most the horizon, because no PUT is sent from now on.
    """
    parameters = {
        "batch": str(batch),
        "horizon": horizon_s,
        "landed": list(ended.landed),
        "refused": list(ended.refused),
        "drifted": list(ended.drifted),
        "found": list(ended.drifted.values()),
    }
    with connection.cursor() as cursor:
        cursor.execute(_END_CLAIMS, parameters)


def forget(connection: Connection, key_retention_h: float, running_for_s: float) -> None:
    """Delete rows that are needed no longer: ended quarantines, outcomes older than the retention, keys in use that no
    request holds any more, and cart closings for explicit items after ten minutes, when it may be another cart.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            DELETE FROM stock_claims WHERE product_id IN (
                SELECT product_id FROM stock_claims WHERE batch_id IS NULL AND lands_until < now()
                FOR UPDATE SKIP LOCKED);
            DELETE FROM idempotency_keys WHERE key IN (
                SELECT key FROM idempotency_keys WHERE created_at < now() - %(keep)s * interval '1 h' LIMIT 1000);
            DELETE FROM idempotency_keys k
                WHERE status IS NULL AND created_at < now() - %(running)s * interval '1 s'
                  AND NOT EXISTS (SELECT FROM stock_claims c WHERE c.batch_id = k.batch_id);
            DELETE FROM cart_closings WHERE cart_id IS NULL AND queued_at < now() - interval '10 min'
            """,
            {"keep": key_retention_h, "running": running_for_s},
        )


def products_due_back(connection: Connection, limit: int) -> list[int]:
    """Products that have stock due back and no claim, the longest waiting first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT product_id FROM stock_returns r
               WHERE returned_at IS NULL AND retry_at <= now() AND batch_id IS NULL
                 AND NOT EXISTS (SELECT FROM stock_claims c WHERE c.product_id = r.product_id)
               GROUP BY product_id ORDER BY min(queued_at) LIMIT %s""",
            (limit,),
        )
        return [product_id for (product_id,) in cursor]
