"""Reports, computed by PostgreSQL: days that are over from stored sums, other days from the orders.

The sums are of all orders. A report on a part of them, or for a seer of a part, is in `part_reports_sql`.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from orders.finding.lists_sql import fetch
from orders.finding.part_reports_sql import (
    part_of,
    products_of_part,
    sales_by_channel,
    sales_of_part,
    standings_of_part,
)
from orders.postgres.database import Connection
from orders.principal import Seer

Period = Literal["day", "week", "month"]
Measure = Literal["units", "revenue", "orders"]


@dataclass(frozen=True, slots=True)
class Sales:
    """The sales of the period that begins on `begin`, or of a channel in the whole span."""

    begin: date
    orders: int
    units: int
    revenue: int
    channel: str | None = None


@dataclass(frozen=True, slots=True)
class ProductSales:
    """The sales of a product. `name` is the name in its last order."""

    product_id: int
    name: str | None
    orders: int
    units: int
    revenue: int


@dataclass(frozen=True, slots=True)
class StatusCount:
    """Number of orders at a status, since when the oldest has been there, and since when the median one."""

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


def read_sales(
    connection: Connection, seer: Seer, channel: str | None, by: Period, first: date, last: date
) -> list[Sales]:
    """The sales from the first day to the last, both included, that the seer sees. A period without sales has zeros."""
    part = part_of(seer, channel)
    rows = sales_of_part(connection, part, by, first, last) if part else _all_sales(connection, by, first, last)
    return [Sales(begin, int(orders), int(units), int(revenue)) for begin, orders, units, revenue in rows]


def read_sales_by_channel(
    connection: Connection, seer: Seer, channel: str | None, first: date, last: date
) -> list[Sales]:
    """The sales of each channel from the first day to the last, both included, that the seer sees."""
    rows = sales_by_channel(connection, part_of(seer, channel), first, last)
    return [Sales(first, int(orders), int(units), int(revenue), name) for name, orders, units, revenue in rows]


def _all_sales(connection: Connection, by: Period, first: date, last: date) -> list[Any]:
    return fetch(
        connection,
        f"""WITH {_DAYS}, sales AS (
                SELECT s.* FROM days d JOIN sales_days s USING (day) WHERE d.is_summed_up
                UNION ALL
                SELECT d.day, s.* FROM days d CROSS JOIN LATERAL sales_of(d.day) s WHERE NOT d.is_summed_up)
            SELECT greatest(date_trunc(%(by)s, day)::date, %(first)s::date), sum(orders), sum(units), sum(revenue)
            FROM sales GROUP BY 1 ORDER BY 1""",
        {"by": by, "first": first, "last": last},
    )


def read_product_sales(
    connection: Connection, seer: Seer, channel: str | None, measure: Measure, first: date, last: date, limit: int
) -> list[ProductSales]:
    """The best-selling products from the first day to the last, both included, of the orders that the seer sees."""
    part = part_of(seer, channel)
    if part:
        rows = products_of_part(connection, part, measure, first, last, limit)
    else:
        rows = _all_product_sales(connection, measure, first, last, limit)
    return [
        ProductSales(product_id, name, int(orders), int(units), int(revenue))
        for product_id, name, orders, units, revenue in rows
    ]


def _all_product_sales(connection: Connection, measure: Measure, first: date, last: date, limit: int) -> list[Any]:
    return fetch(
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


def read_standings(connection: Connection, seer: Seer, channel: str | None) -> list[StatusCount]:
    """The statuses of placed orders that the seer sees. Adopted orders are counted, but have no time."""
    part = part_of(seer, channel)
    rows = standings_of_part(connection, part) if part else _all_standings(connection)
    return [StatusCount(*row) for row in rows]


def _all_standings(connection: Connection) -> list[Any]:
    """The sums of days tell on which day the oldest and the median order fall. Only the orders of these days are
    read.
    """
    return fetch(
        connection,
        """WITH known AS (
                SELECT *, sum(orders) OVER earlier - orders AS before, div(sum(orders) OVER own - 1, 2) AS middle
                FROM standings()
                WINDOW own AS (PARTITION BY status, first > '1970-01-01'), earlier AS (own ORDER BY first))
            SELECT status, sum(orders)::bigint,
                min(CASE WHEN first > '1970-01-01' AND before = 0 THEN (
                    SELECT min(since) FROM standings_between(first, last) s WHERE s.status = known.status) END),
                min(CASE WHEN first > '1970-01-01' AND middle BETWEEN before AND before + orders - 1 THEN (
                    SELECT since FROM standings_between(first, last) s WHERE s.status = known.status
                    ORDER BY since OFFSET middle - before LIMIT 1) END)
            FROM known GROUP BY status""",
        {},
    )


def sum_up_a_day(connection: Connection) -> date | None:
    """Sum up the sales of one day that is over. Returns None if there is none left, or another replica is at work."""
    return _one_day(connection, "SELECT sum_up_a_day()")


def count_standings(connection: Connection) -> date | None:
    """Count the orders that came to their status on one day that is over. Returns None like `sum_up_a_day`."""
    return _one_day(connection, "SELECT count_standings()")


def _one_day(connection: Connection, statement: str) -> date | None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
        return row[0] if row else None
