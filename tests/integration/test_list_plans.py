"""What a list costs on a large table: PostgreSQL explains its plan, after it has run it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg2
import pytest

from orders.finding import lists_sql
from orders.finding.filters import Filters, Position, Range, Sort, SortKey
from orders.postgres import database
from orders.postgres.database import Connection
from orders.principal import SEES_EVERYTHING, Seer
from tests.conftest import execute
from tests.made_up import make_up

ORDERS = 100_000
NOW = datetime.now(UTC)
LIMIT = 101
SORTS = [Sort(by, descending) for by in SortKey for descending in (True, False)]


@pytest.fixture(scope="module")
def large(postgres: str) -> Iterator[Connection]:
    execute(postgres, "DROP DATABASE IF EXISTS orders_large WITH (FORCE)")
    execute(postgres, "CREATE DATABASE orders_large")
    dsn = psycopg2.extensions.make_dsn(postgres, dbname="orders_large")
    database.migrate(dsn)
    make_up(dsn, ORDERS)
    connection = database.connect(dsn)
    yield connection
    connection.close()
    execute(postgres, "DROP DATABASE orders_large WITH (FORCE)")


def id_at(moment: datetime) -> UUID:
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def explain(
    connection: Connection, filters: Filters, sort: Sort, after: Position | None = None, seer: Seer = SEES_EVERYTHING
) -> dict[str, Any]:
    statement, parameters = lists_sql._page_keys(seer, filters, sort, after, LIMIT)
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
        return dict(cursor.fetchone()[0][0]["Plan"])  # type: ignore[index]


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Scan" in plan["Node Type"] and plan["Node Type"] != "CTE Scan":
        yield plan
    for part in plan.get("Plans", []):
        yield from scans(part)


def touched(plan: dict[str, Any]) -> int:
    """How many rows and index entries were looked at."""
    return int(
        sum(
            scan["Actual Loops"] * (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) for scan in scans(plan)
        )
    )


def indexes(plan: dict[str, Any]) -> set[str]:
    used = [scan for scan in scans(plan) if scan["Actual Loops"]]
    assert not [scan for scan in used if scan["Node Type"] == "Seq Scan"], plan
    return {scan["Index Name"] for scan in used if "Index Name" in scan}


WINDOW = (NOW - timedelta(days=200), NOW - timedelta(days=199))
EACH_FILTER = [
    (Filters(), "orders_pkey"),
    (Filters(statuses=("Refunded",)), "orders_by_status"),
    (Filters(statuses=("Ordered", "Paid")), "orders_by_status"),
    (Filters(statuses=("Failed",)), "orders_by_status"),
    (Filters(customer_id=105), "orders_by_customer"),
    (Filters(product_id=105), "order_items_by_product"),
    (Filters(number=ORDERS // 2), "orders_by_number"),
    (Filters(external_reference="ref-1000"), "orders_one_per_reference"),
    (Filters(metadata=(("lot", "77"),)), "order_metadata_pkey"),
    (Filters(created=Range(*map(id_at, WINDOW))), "orders_pkey"),
    (Filters(updated=Range(*WINDOW)), "orders_by_status_and_update"),
    (Filters(total=Range(999_000, 999_100)), "orders_by_status_and_total"),
]
EACH_SEER = [
    (Seer(customer_id=105), Filters(), {"orders_by_customer"}),
    (Seer(customer_id=105), Filters(statuses=("Completed", "Paid")), {"orders_by_customer"}),
    (Seer(customer_id=105), Filters(customer_id=106), {"orders_by_customer"}),
    (Seer(customer_id=105), Filters(created=Range(*map(id_at, WINDOW))), {"orders_by_customer"}),
    (Seer(customer_id=105), Filters(product_id=7), {"orders_by_customer", "order_items_by_product"}),
    (Seer(customer_id=105, channel="fair"), Filters(), {"orders_by_customer", "orders_by_channel"}),
    (Seer(channel="fair"), Filters(), {"orders_by_channel"}),
    (Seer(channel="fair"), Filters(channel="fair"), {"orders_by_channel"}),
    (Seer(channel="fair"), Filters(created=Range(*map(id_at, WINDOW))), {"orders_by_channel", "orders_pkey"}),
    (SEES_EVERYTHING, Filters(channel="fair"), {"orders_by_channel"}),
]
"""What seers ask for, and the indexes that may serve it: those of the filter or that of the seer."""

LARGE_PARTS = [
    Filters(statuses=("Completed",)),
    Filters(customer_id=7),
    Filters(product_id=7),
    Filters(metadata=(("channel", "web"),)),
]
"""Every tenth order or more: walking through the newest is as good as any index."""


def test_every_filter_and_every_sort_has_an_index_that_serves_it(large: Connection) -> None:
    """One test, because the table takes long to make."""
    for filters, index in EACH_FILTER:
        check_filter(large, filters, index)
    for filters in LARGE_PARTS:
        check_filter(large, filters, None)
    for seer, filters, may_serve in EACH_SEER:
        check_seer(large, seer, filters, may_serve)
    # Open orders are new and refunded ones are old: a walk along one end of an index would not find them.
    for statuses in ((), ("Ordered", "Paid", "Processing"), ("Refunded",), ("Completed", "Shipped")):
        for sort in SORTS:
            check_sort(large, Filters(statuses=statuses), sort)


def check_filter(connection: Connection, filters: Filters, served_by: str | None) -> None:
    for sort in SORTS:
        plan = explain(connection, filters, sort)
        used = indexes(plan)
        if sort.by is SortKey.CREATED_AT:
            assert served_by is None or any(name.startswith(served_by) for name in used), (filters, sort, used)
            assert touched(plan) < ORDERS * 0.03, (filters, sort, plan)


def check_seer(connection: Connection, seer: Seer, filters: Filters, may_serve: set[str]) -> None:
    for sort in SORTS:
        plan = explain(connection, filters, sort, seer=seer)
        used = indexes(plan)
        # No index of channels ends with another sort key: PostgreSQL sorts, or walks along the statuses.
        if sort.by is SortKey.CREATED_AT or seer.customer_id:
            assert touched(plan) < ORDERS * 0.03, (seer, filters, sort, plan)
        if sort.by is SortKey.CREATED_AT:
            assert used <= may_serve | {"order_items_pkey", "order_items_by_order"}, (seer, filters, sort, used)


def check_sort(connection: Connection, filters: Filters, sort: Sort) -> None:
    """From every place, also one that nobody was ever given."""
    for key in (None, -(2**62), 0, 1000, 2**62):
        moment = _NOW_OR_NEVER.get(key, NOW) if sort.by is SortKey.UPDATED_AT else key
        for order_id in (UUID(int=0), id_at(WINDOW[0]), UUID(int=2**128 - 1)):
            plan = explain(connection, filters, sort, Position(moment, order_id))
            used = indexes(plan)
            if sort.by is SortKey.NUMBER and filters.statuses:
                assert_walks_along_numbers(plan, used)
            else:
                assert touched(plan) < 3_000, (filters, sort, key, order_id, plan)


def assert_walks_along_numbers(plan: dict[str, Any], used: set[str]) -> None:
    """In the index alone, or all orders of the status are sorted: whichever PostgreSQL expects to be less."""
    assert all(name == "orders_by_number" or name.startswith("orders_by_status") for name in used), plan
    for scan in scans(plan):
        if scan.get("Index Name") == "orders_by_number":
            assert scan["Node Type"] == "Index Only Scan", plan


_NOW_OR_NEVER = {
    None: None,
    -(2**62): datetime.min.replace(tzinfo=UTC),
    0: WINDOW[0],
    2**62: datetime.max.replace(tzinfo=UTC),
}
