"""The record of each product's stock, and a person's decisions about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from orders.order.audit_sql import AuditEntry, add_audit
from orders.postgres.database import Connection, Cursor, transaction
from orders.postgres.rows import named_rows
from orders.stock.plan import Adjustment


@dataclass(frozen=True, slots=True)
class Doubt:
    """A PUT of `after` over `before` whose outcome is unknown. The catalog said `found` later."""

    before: int
    after: int
    found: int | None
    at: str


@dataclass(frozen=True, slots=True)
class Book:
    """What this service knows of a product's stock.

    `last_id` is the ID of the record's newest row, and `since` its time. `figure` is the stock that the catalog should
    have by that row, or None if it had lost the product. Since the record began, batches have added `ours`, people
    `corrected` (with `orders reconcile`), and others `outside`. `ordered` is what `ours` should be by the orders and
    returns. `due` is still to go back. `is_busy`: a PUT may be under way. `doubts`: those that no person has settled.
    """

    product_id: int
    last_id: int
    figure: int | None
    since: str
    ours: int
    corrected: int
    outside: int
    ordered: int
    due: int
    is_busy: bool
    doubts: tuple[Doubt, ...]


def recorded_products(connection: Connection, above: int, limit: int) -> list[int]:
    """The next products of the record, by ID."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT product_id FROM stock_record WHERE product_id > %s ORDER BY product_id LIMIT %s",
            (above, limit),
        )
        return [product_id for (product_id,) in cursor]


_BOOKS = """
    WITH asked AS (SELECT unnest(%(products)s::bigint[]) AS product_id),
    rows AS (
        SELECT r.*, lag(figure) OVER product AS known,
               max(id) FILTER (WHERE kind IN ('corrected', 'accepted')) OVER whole AS settled
        FROM stock_record r JOIN asked USING (product_id)
        WINDOW whole AS (PARTITION BY product_id), product AS (whole ORDER BY id)),
    record AS (
        SELECT product_id, max(id) AS last_id, (array_agg(figure ORDER BY id DESC))[1] AS figure,
            max(noted_at) AS since,
            sum(after - before) FILTER (WHERE kind = 'moved') AS ours,
            sum(after - before) FILTER (WHERE kind = 'corrected') AS corrected,
            sum(before - known) AS between_rows,
            sum(figure - before) FILTER (WHERE kind IN ('accepted', 'in doubt')) AS within_rows,
            json_agg(json_build_object('before', before, 'after', after, 'found', found, 'at', noted_at) ORDER BY id)
                FILTER (WHERE kind = 'in doubt' AND id > coalesce(settled, 0)) AS doubts
        FROM rows GROUP BY product_id),
    taken AS (
        SELECT i.product_id, sum(i.quantity + i.cancelled) AS quantity
        FROM asked JOIN order_items i USING (product_id) JOIN orders o ON o.id = i.order_id
        WHERE NOT o.adopted AND (o.placed_at IS NOT NULL OR o.status = 'Pending' AND NOT EXISTS (
            SELECT FROM stock_claims c WHERE c.product_id = i.product_id AND c.batch_id = o.batch_id))
        GROUP BY 1),
    returns AS (
        SELECT r.product_id,
            sum(r.quantity) FILTER (WHERE o.status = 'Failed') AS by_failed,
            sum(r.quantity) FILTER (WHERE returned_at IS NOT NULL AND NOT EXISTS (
                SELECT FROM stock_record d WHERE d.product_id = r.product_id AND d.batch_id = r.batch_id
                AND d.kind = 'in doubt')) AS returned,
            sum(r.quantity) FILTER (WHERE returned_at IS NULL) AS due
        FROM asked JOIN stock_returns r USING (product_id) JOIN orders o ON o.id = r.order_id GROUP BY 1)
    SELECT product_id, last_id, figure, to_char(since, 'YYYY-MM-DD HH24:MI:SS OF') AS since,
        coalesce(ours, 0)::bigint AS ours, coalesce(corrected, 0)::bigint AS corrected,
        (coalesce(between_rows, 0) + coalesce(within_rows, 0))::bigint AS outside,
        (coalesce(returned, 0) - coalesce(by_failed, 0) - coalesce(taken.quantity, 0))::bigint AS ordered,
        coalesce(due, 0)::bigint AS due,
        EXISTS (SELECT FROM stock_claims c
                WHERE c.product_id = record.product_id AND c.after IS NOT NULL) AS is_busy,
        doubts
    FROM record LEFT JOIN taken USING (product_id) LEFT JOIN returns USING (product_id)
"""


def books(connection: Connection, products: Sequence[int]) -> dict[int, Book]:
    """The books of these products, without those that were never written.

    A PUT in doubt counts as not landed for its orders, which failed, and as landed for stock that was due back. So that
    stock is no part of `ordered`, just as it is no part of `ours`.
    """
    with connection.cursor() as cursor:
        cursor.execute(_BOOKS, {"products": list(products)})
        found = [Book(**{**row, "doubts": _doubts(row["doubts"])}) for row in named_rows(cursor)]
    return {book.product_id: book for book in found}


def _doubts(rows: Sequence[dict[str, Any]] | None) -> tuple[Doubt, ...]:
    return tuple(Doubt(**row) for row in rows or ())


def latest_with_stock(connection: Connection, product_id: int, found: int, at_most: int) -> str | None:
    """The last time that the stock was `found` before one of our newest PUTs, or None. If there is one, someone may
    have written an old figure back.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT to_char(noted_at, 'YYYY-MM-DD HH24:MI:SS OF') FROM (
                   SELECT * FROM stock_record WHERE product_id = %s ORDER BY id DESC LIMIT %s) newest
               WHERE before = %s ORDER BY id DESC LIMIT 1""",
            (product_id, at_most, found),
        )
        row = cursor.fetchone()
        return row[0] if row else None


def intend_correction(
    connection: Connection, batch: UUID, horizon_s: float, product_id: int, change: Adjustment, audit: AuditEntry
) -> bool:
    """Commit before a correction is PUT, with an entry in the audit. If this returns False, the claim is not ours any
    more, and nothing may be sent.
    """
    with transaction(connection) as cursor:
        cursor.execute(
            """UPDATE stock_claims SET before = %s, after = %s, is_correction = true,
                                       lands_until = lease_until + %s * interval '1 s'
               WHERE batch_id = %s AND product_id = %s AND lease_until > now()""",
            (change.before, change.after, horizon_s, str(batch), product_id),
        )
        return _audited(cursor, audit)


def accept(
    connection: Connection, batch: UUID, product_id: int, recorded: int | None, found: int, audit: AuditEntry
) -> bool:
    """Record that the catalog's figure is right, with an entry in the audit, and release the claim. Returns False if
    the claim is not ours any more.
    """
    with transaction(connection) as cursor:
        cursor.execute(
            """WITH ours AS (DELETE FROM stock_claims WHERE batch_id = %(batch)s AND product_id = %(product)s
                             AND lease_until > now() RETURNING batch_id)
               INSERT INTO stock_record (product_id, batch_id, kind, before, after)
               SELECT %(product)s, batch_id, 'accepted', %(before)s, %(after)s FROM ours""",
            {
                "batch": str(batch),
                "product": product_id,
                "before": found if recorded is None else recorded,
                "after": found,
            },
        )
        return _audited(cursor, audit)


def _audited(cursor: Cursor, audit: AuditEntry) -> bool:
    """Whether the last statement wrote its row. Then it is in the audit, too."""
    if cursor.rowcount != 1:
        return False
    add_audit(cursor, audit)
    return True
