"""Reports, counted by PostgreSQL: days that are over from their sums, the others from the orders."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from orders.database import Connection
from orders.store.listing import IS_PLACED, SMALLEST_ID, STATUSES_THERE_ARE, fetch

Period = Literal["day", "week", "month"]
Measure = Literal["units", "revenue", "orders"]


@dataclass(frozen=True, slots=True)
class Sales:
    """What was sold in the period that begins on `begin`."""

    begin: date
    orders: int
    units: int
    revenue: int


@dataclass(frozen=True, slots=True)
class ProductSales:
    """What was sold of a product. `name` is that of its last order."""

    product_id: int
    name: str | None
    orders: int
    units: int
    revenue: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How many orders stand at a status; since when the first of them does, and the one in the middle."""

    status: str
    orders: int
    oldest_since: datetime | None
    median_since: datetime | None


_DAYS = """
    days AS (
        SELECT d::date AS day, EXISTS (SELECT FROM sales_days s WHERE s.day = d::date)
            AND NOT EXISTS (SELECT FROM sales_changes c WHERE c.day = d::date) AS is_summed_up
        FROM generate_series(%(first)s::date, %(last)s::date, interval '1 day') d)
"""


def read_sales(connection: Connection, by: Period, first: date, last: date) -> list[Sales]:
    """The sales from the first day to the last, both included; a period without any is there, with zeros."""
    rows = fetch(
        connection,
        f"""WITH {_DAYS}, sales AS (
                SELECT s.* FROM days d JOIN sales_days s USING (day) WHERE d.is_summed_up
                UNION ALL
                SELECT d.day, s.* FROM days d CROSS JOIN LATERAL sales_of(d.day) s WHERE NOT d.is_summed_up)
            SELECT greatest(date_trunc(%(by)s, day)::date, %(first)s::date), sum(orders), sum(units), sum(revenue)
            FROM sales GROUP BY 1 ORDER BY 1""",
        {"by": by, "first": first, "last": last},
    )
    return [Sales(begin, int(orders), int(units), int(revenue)) for begin, orders, units, revenue in rows]


def read_product_sales(
    connection: Connection, measure: Measure, first: date, last: date, limit: int
) -> list[ProductSales]:
    """The products that sold most from the first day to the last, both included."""
    rows = fetch(
        connection,
        f"""WITH {_DAYS}, sales AS (
                SELECT product_id, orders, units, revenue FROM days JOIN sales_of_products USING (day)
                WHERE is_summed_up
                UNION ALL
                SELECT s.* FROM days d CROSS JOIN LATERAL product_sales_of(d.day) s WHERE NOT d.is_summed_up),
            best AS (
                SELECT product_id, sum(orders) AS orders, sum(units) AS units, sum(revenue) AS revenue
                FROM sales GROUP BY product_id ORDER BY {measure} DESC, product_id LIMIT %(limit)s)
            SELECT product_id, (SELECT i.name FROM order_items i WHERE i.product_id = best.product_id
                                ORDER BY i.order_id DESC LIMIT 1), orders, units, revenue
            FROM best ORDER BY {measure} DESC, product_id""",
        {"first": first, "last": last, "limit": limit},
    )
    return [
        ProductSales(product_id, name, int(orders), int(units), int(revenue))
        for product_id, name, orders, units, revenue in rows
    ]


_SINCE = "coalesce(o.moved_at, o.placed_at)"


def read_standings(connection: Connection) -> list[Standing]:
    """The statuses at which placed orders stand. Adopted orders are counted, but since when is not asked of them.

    Where all orders of a status were moved there, or none was since it was placed, count and middle are found along an
    index (of the latter by creation); where it is some, those orders are sorted.
    """
    adopted = f"FROM orders o WHERE o.status = s.status AND o.id < '{SMALLEST_ID}' AND {IS_PLACED}"
    # Not adopted: their IDs begin with the time 0. Said so that the index by status and ID has all that is asked.
    recorded = f"""FROM orders o WHERE o.status = s.status AND o.status NOT IN ('Pending', 'Failed')
                   AND o.id >= '{SMALLEST_ID}'"""
    moved = "FROM orders o WHERE o.status = s.status AND o.moved_at IS NOT NULL AND NOT o.adopted"
    rows = fetch(
        connection,
        f"""SELECT s.status, known + old,
                CASE WHEN moved = known THEN (SELECT o.moved_at {moved} ORDER BY o.moved_at LIMIT 1)
                     WHEN moved = 0 THEN (SELECT o.placed_at {recorded} ORDER BY o.id LIMIT 1)
                     ELSE (SELECT min({_SINCE}) {recorded}) END,
                CASE WHEN moved = known THEN (SELECT o.moved_at {moved} ORDER BY o.moved_at OFFSET middle LIMIT 1)
                     WHEN moved = 0 THEN (SELECT o.placed_at FROM orders o WHERE o.id = (
                        SELECT o.id {recorded} ORDER BY o.id OFFSET middle LIMIT 1))
                     ELSE (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY {_SINCE})
                           {recorded}) END
            FROM {STATUSES_THERE_ARE} s
            CROSS JOIN LATERAL (SELECT count(*) AS old {adopted}) a
            CROSS JOIN LATERAL (SELECT count(*) AS known, greatest(count(*) - 1, 0) / 2 AS middle
                                {recorded}) r
            CROSS JOIN LATERAL (SELECT count(*) AS moved {moved}) m
            WHERE known + old > 0""",
        {},
    )
    return [Standing(*row) for row in rows]


def sum_up_a_day(connection: Connection) -> date | None:
    """Sum up one day that is over; None: all are summed up, or someone else is at it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum_up_a_day()")
        row = cursor.fetchone()
        return row[0] if row else None
