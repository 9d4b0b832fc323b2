"""Reports on a part of the orders, as one channel's: counted from the orders, because the sums of days are of all."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from orders.finding.conditions_sql import IS_PLACED, Condition, all_of, in_channel, seen_by, values_of
from orders.finding.lists_sql import fetch
from orders.postgres.database import Connection
from orders.principal import Seer


def part_of(seer: Seer, channel: str | None) -> list[Condition]:
    """The order is of the part that the seer sees and, if a channel is given, came through it. Empty: every order."""
    return [*seen_by(seer), *in_channel(channel)]


def _is_sold(part: Sequence[Condition]) -> str:
    """The order is of this part, was created from the first day to the last, and counts as sold."""
    created = Condition("o.id >= order_id_at(%(first)s::date) AND o.id < order_id_at(%(last)s::date + 1)")
    return all_of([created, Condition("order_is_sold(o.status, o.placed_at)"), *part])


def _sold(part: Sequence[Condition]) -> str:
    return f"""
        sold AS (
            SELECT o.channel, (order_created_at(o.id) AT TIME ZONE 'UTC')::date AS day, o.total AS revenue,
                (SELECT sum(i.quantity) FROM order_items i WHERE i.order_id = o.id) AS units
            FROM orders o WHERE {_is_sold(part)})"""


def sales_of_part(connection: Connection, part: Sequence[Condition], by: str, first: date, last: date) -> list[Any]:
    """The begin of each period, and the sales in it: orders, units, revenue. A period without sales has zeros."""
    return fetch(
        connection,
        f"""WITH {_sold(part)}
            SELECT greatest(date_trunc(%(by)s, d::date)::date, %(first)s::date), count(sold.day),
                coalesce(sum(units), 0), coalesce(sum(revenue), 0)
            FROM generate_series(%(first)s::date, %(last)s::date, interval '1 day') d
            LEFT JOIN sold ON sold.day = d::date GROUP BY 1 ORDER BY 1""",
        {"by": by, "first": first, "last": last, **values_of(part)},
    )


def sales_by_channel(connection: Connection, part: Sequence[Condition], first: date, last: date) -> list[Any]:
    """Each channel with its sales of all these days: orders, units, revenue. Orders without a channel come first."""
    return fetch(
        connection,
        f"""WITH {_sold(part)}
            SELECT channel, count(*), coalesce(sum(units), 0), coalesce(sum(revenue), 0)
            FROM sold GROUP BY channel ORDER BY channel NULLS FIRST""",
        {"first": first, "last": last, **values_of(part)},
    )


def products_of_part(
    connection: Connection, part: Sequence[Condition], measure: str, first: date, last: date, limit: int
) -> list[Any]:
    """The best-selling products: ID, name in the last order of this part, orders, units, revenue."""
    return fetch(
        connection,
        f"""WITH best AS (
                SELECT i.product_id, count(*) AS orders, sum(i.quantity) AS units,
                    sum(i.quantity * i.unit_price::numeric) AS revenue
                FROM orders o JOIN order_items i ON i.order_id = o.id WHERE {_is_sold(part)}
                GROUP BY i.product_id ORDER BY {measure} DESC, i.product_id LIMIT %(limit)s)
            SELECT product_id, (SELECT i.name FROM order_items i JOIN orders o ON o.id = i.order_id
                                WHERE i.product_id = best.product_id AND {all_of(part)}
                                ORDER BY i.order_id DESC LIMIT 1), orders, units, revenue
            FROM best ORDER BY {measure} DESC, product_id""",
        {"first": first, "last": last, "limit": limit, **values_of(part)},
    )


def standings_of_part(connection: Connection, part: Sequence[Condition]) -> list[Any]:
    """Each status of placed orders: their number, and since when the oldest and the median one have it."""
    return fetch(
        connection,
        f"""SELECT status, count(*), min(since), percentile_disc(0.5) WITHIN GROUP (ORDER BY since)
            FROM (SELECT o.status, CASE WHEN NOT o.adopted THEN coalesce(o.moved_at, o.placed_at) END AS since
                  FROM orders o WHERE {all_of([IS_PLACED, *part])}) placed
            GROUP BY status""",
        values_of(part),
    )
