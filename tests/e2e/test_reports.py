"""Reports are what a naive count of the orders would give, at any moment, also of days that were summed up."""

import asyncio
import dataclasses
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from orders.finding import summing_up
from orders.finding.reports_sql import (
    StatusCount,
    count_standings,
    read_product_sales,
    read_sales,
    read_sales_by_channel,
    read_standings,
    sum_up_a_day,
)
from orders.postgres.database import Database
from orders.principal import SEES_EVERYTHING, Seer
from tests.conftest import Sandbox, execute
from tests.e2e.conftest import Service
from tests.e2e.test_contract import problem
from tests.made_up import make_up

TODAY = datetime.now(UTC).date()
ORDERS = 3_000


@pytest.fixture
def database(dsn: str) -> Any:
    make_up(dsn, ORDERS, products=40)
    execute(dsn, "UPDATE orders SET channel = (ARRAY['web', 'shop'])[1 + number % 3]")
    # Besides: some that are adopted, and one at the very edges of two days.
    execute(
        dsn,
        """INSERT INTO orders (id, customer_id, status, adopted, created_at, updated_at)
           SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 1, 'Completed', true, NULL, NULL
           FROM generate_series(1, 5) n;
           INSERT INTO order_items (order_id, product_id, quantity) SELECT id, 7, 1 FROM orders WHERE adopted;
           UPDATE sales_days SET orders = 0;
           ALTER TABLE orders DISABLE TRIGGER check_status""",  # reports are right after changes that it refuses, too
    )
    reader = Database(dsn, threads=2)
    yield reader
    reader.close()
    execute(dsn, "ALTER TABLE orders ENABLE TRIGGER check_status")


OF_PART = """(%(customer_id)s::bigint IS NULL OR customer_id = %(customer_id)s)
             AND (%(channel)s::text IS NULL OR channel = %(channel)s)
             AND (%(wanted)s::text IS NULL OR channel = %(wanted)s)"""


@dataclass(frozen=True)
class Part:
    """Who asks, and the channel that it asks for."""

    seer: Seer = SEES_EVERYTHING
    channel: str | None = None

    def values(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.seer), "wanted": self.channel}


EVERYTHING = Part()
PARTS = [
    Part(channel="web"),
    Part(channel="none"),
    Part(Seer(channel="shop")),
    Part(Seer(channel="shop"), "shop"),
    Part(Seer(channel="shop"), "web"),
    Part(Seer(customer_id=7)),
    Part(Seer(customer_id=7, channel="web", sees_private=False)),
]


def naive_sales(dsn: str, part: Part, first: date, last: date) -> dict[date, tuple[int, int, int]]:
    days = {first + timedelta(days=n): (0, 0, 0) for n in range((last - first).days + 1)}
    rows = execute(
        dsn,
        """SELECT (created_at AT TIME ZONE 'UTC')::date, total,
                  (SELECT sum(quantity) FROM order_items i WHERE i.order_id = o.id)
           FROM orders o WHERE status NOT IN ('Pending', 'Failed', 'Cancelled') AND created_at IS NOT NULL AND """
        + OF_PART,
        part.values(),
    )
    for day, total, units in rows:
        if first <= day <= last:
            orders, all_units, revenue = days[day]
            days[day] = (orders + 1, all_units + (units or 0), revenue + total)
    return days


def naive_products(dsn: str, part: Part, first: date, last: date) -> dict[int, tuple[int, int, int]]:
    rows = execute(
        dsn,
        """SELECT product_id, count(*), sum(quantity), sum(quantity * unit_price)
           FROM order_items i JOIN orders o ON o.id = i.order_id
           WHERE status NOT IN ('Pending', 'Failed', 'Cancelled')
             AND (created_at AT TIME ZONE 'UTC')::date BETWEEN %(first)s AND %(last)s
             AND """
        + OF_PART
        + " GROUP BY 1",
        {"first": first, "last": last, **part.values()},
    )
    return {product: (orders, int(units), int(revenue)) for product, orders, units, revenue in rows}


def naive_standings(dsn: str, part: Part) -> dict[str, StatusCount]:
    """By the day of the move or, never moved, of the creation as the ID has it; then by the time itself."""
    rows = execute(
        dsn,
        """SELECT status, CASE WHEN NOT adopted THEN coalesce(moved_at, placed_at) END FROM orders
           WHERE (status NOT IN ('Pending', 'Failed') OR adopted) AND """
        + OF_PART
        + """
           ORDER BY (coalesce(moved_at, order_created_at(id)) AT TIME ZONE 'UTC')::date,
                    coalesce(moved_at, placed_at)""",
        part.values(),
    )
    standings: dict[str, StatusCount] = {}
    for status in {status for status, _ in rows}:
        times = [since for s, since in rows if s == status]
        known = [since for since in times if since is not None] or [None]
        standings[status] = StatusCount(status, len(times), known[0], known[(len(known) - 1) // 2])
    return standings


def check_standings(database: Database, part: Part = EVERYTHING) -> None:
    found = database.run_sync(lambda c: read_standings(c, part.seer, part.channel))
    assert {s.status: s for s in found} == naive_standings(database.dsn, part)


def check(database: Database, first: date, last: date, part: Part = EVERYTHING) -> None:
    check_standings(database, part)
    dsn, asked = database.dsn, (part.seer, part.channel)
    expected = naive_sales(dsn, part, first, last)
    days = database.run_sync(lambda c: read_sales(c, *asked, "day", first, last))
    assert {day.begin: (day.orders, day.units, day.revenue) for day in days} == expected
    for by, begins in (("week", lambda d: d - timedelta(days=d.weekday())), ("month", lambda d: d.replace(day=1))):
        sums: dict[date, Counter[str]] = {}
        for day, (orders, units, revenue) in expected.items():
            period = sums.setdefault(max(begins(day), first), Counter())  # type: ignore[no-untyped-call]
            period.update(orders=orders, units=units, revenue=revenue)
        found = database.run_sync(lambda c, b=by: read_sales(c, *asked, b, first, last))  # type: ignore[misc]
        assert [(p.begin, p.orders, p.units, p.revenue) for p in found] == [
            (begin, s["orders"], s["units"], s["revenue"]) for begin, s in sorted(sums.items())
        ]
    products = database.run_sync(lambda c: read_product_sales(c, *asked, "units", first, last, 1000))
    assert {p.product_id: (p.orders, p.units, p.revenue) for p in products} == naive_products(dsn, part, first, last)
    assert [(-p.units, p.product_id) for p in products] == sorted((-p.units, p.product_id) for p in products)


def check_channels(database: Database, first: date, last: date, part: Part) -> None:
    found = database.run_sync(lambda c: read_sales_by_channel(c, part.seer, part.channel, first, last))
    sums: dict[str | None, tuple[int, int, int]] = {}
    for channel in ("shop", "web"):
        of_it = dataclasses.replace(part, seer=dataclasses.replace(part.seer, channel=channel))
        days = naive_sales(database.dsn, of_it, first, last).values() if part.seer.channel in (None, channel) else ()
        sums[channel] = tuple(map(sum, zip(*days, strict=True))) if days else (0, 0, 0)
    assert {s.channel: (s.orders, s.units, s.revenue) for s in found if s.channel} == {
        channel: sold for channel, sold in sums.items() if sold[0]
    }
    if part == EVERYTHING:
        everything = map(sum, zip(*naive_sales(database.dsn, part, first, last).values(), strict=True))
        assert tuple(everything) == tuple(sum(getattr(s, n) for s in found) for n in ("orders", "units", "revenue"))
        assert [s.channel for s in found] == [None, "shop", "web"]


def sum_up(database: Database) -> int:
    count = 0
    while database.run_sync(sum_up_a_day):
        count += 1
    while database.run_sync(count_standings):
        pass
    return count


SPANS = [
    (TODAY - timedelta(days=400), TODAY + timedelta(days=3)),
    (TODAY - timedelta(days=29), TODAY),
    (TODAY - timedelta(days=100), TODAY - timedelta(days=100)),
]
CHANGES = [
    "UPDATE orders SET status = 'Cancelled' WHERE number %% 7 = 0 AND status IN ('Completed', 'Refunded', 'Ordered')",
    "UPDATE orders SET status = 'Completed' WHERE number %% 14 = 0 AND status = 'Cancelled'",
    "UPDATE orders SET total = total + 5 WHERE number %% 100 = 1",
    "UPDATE order_items SET quantity = quantity + 1 WHERE id %% 50 = 0",
    "UPDATE orders SET status = 'Shipped' WHERE status = 'Completed' AND number %% 3 = 0",
    "UPDATE orders SET status = 'Returned', moved_at = now() WHERE status = 'Completed' AND number %% 5 = 0",
    "UPDATE orders SET status = 'Returned' WHERE adopted AND number %% 2 = 0",
    "UPDATE orders SET moved_at = NULL WHERE number %% 20 = 0",
    """UPDATE orders SET status = 'Failed', failure = 'order_failed', placed_at = NULL
       WHERE number %% 90 = 2 AND status = 'Ordered'""",
    """INSERT INTO orders (id, customer_id, status, total, created_at, placed_at)
       SELECT order_id_at(at::date), 1, 'Ordered', 7, at, at
       FROM generate_series(now() - interval '99 days', now() - interval '3 days', interval '7 days') at""",
]


def test_reports_are_what_a_naive_count_gives_whatever_was_summed_up_and_changed_since(database: Database) -> None:
    for first, last in SPANS:
        check(database, first, last)
    assert sum_up(database) in (364, 363, 365)
    assert sum_up(database) == 0
    check(database, *SPANS[0])
    for change in CHANGES:
        execute(database.dsn, change.replace("%%", "%"))
        check(database, *SPANS[0])
        database.run_sync(sum_up_a_day)
        database.run_sync(count_standings)
        check(database, *SPANS[0])
    assert sum_up(database) > 50
    assert execute(database.dsn, "SELECT * FROM sales_changes WHERE day < current_date - 3") == []
    for first, last in SPANS:
        check(database, first, last)


def test_a_report_on_a_part_counts_that_part_whatever_was_summed_up(database: Database) -> None:
    for part in PARTS:
        check(database, *SPANS[1], part)
    sum_up(database)
    for change in (None, *CHANGES[::3]):
        if change:
            execute(database.dsn, change.replace("%%", "%"))
        for part in PARTS:
            check(database, *SPANS[0], part)
        for part in (EVERYTHING, *PARTS):
            check_channels(database, *SPANS[0], part)


def test_a_products_name_is_that_of_an_order_of_the_part(database: Database) -> None:
    execute(database.dsn, "UPDATE order_items i SET name = o.channel FROM orders o WHERE o.id = i.order_id")
    for channel in ("web", "shop"):
        for part in (Part(Seer(channel=channel)), Part(channel=channel)):
            found = database.run_sync(
                lambda c, p=part: read_product_sales(c, p.seer, p.channel, "orders", *SPANS[0], 1000)  # type: ignore[misc]
            )
            assert {product.name for product in found} == {channel}


def test_a_move_that_changes_no_sale_leaves_the_sums_alone(database: Database) -> None:
    sum_up(database)
    execute(database.dsn, "UPDATE orders SET status = 'Delivered', updated_at = now() WHERE status = 'Completed'")
    assert sum_up(database) == 0


def test_changes_while_a_day_is_summed_up_are_never_lost(database: Database) -> None:
    dsn, stop = database.dsn, threading.Event()

    def change(half: int) -> None:  # each thread has orders of its own: both at the same ones would deadlock
        n = 0
        while not stop.is_set():
            n += 1
            wanted, given = ("Cancelled", "Completed") if n % 2 else ("Completed", "Cancelled")
            some = n // 2 % 20 * 2 + half
            execute(dsn, f"UPDATE orders SET status = '{wanted}' WHERE number % 40 = {some} AND status = '{given}'")

    changing = [threading.Thread(target=change, args=(half,)) for half in (0, 1)]
    for thread in changing:
        thread.start()
    try:
        for _ in range(300):
            database.run_sync(sum_up_a_day)
            database.run_sync(count_standings)
    finally:
        stop.set()
        for thread in changing:
            thread.join()
    check(database, *SPANS[0])
    sum_up(database)
    check(database, *SPANS[0])


def test_what_can_not_be_summed_up_keeps_nothing_else_from_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(summing_up, "sum_up_a_day", fail)
    assert asyncio.run(summing_up.sum_up_once(database))
    assert execute(database.dsn, "SELECT FROM standing_days LIMIT 1")


def test_each_day_is_counted_once_and_what_changed_since_is_added(database: Database) -> None:
    days = 0
    while database.run_sync(count_standings):
        days += 1
        if days % 50 == 0:
            check_standings(database)
    assert days in (364, 365, 366)  # those of a year, and the one of adopted orders
    execute(database.dsn, "UPDATE orders SET status = 'Paid', moved_at = now() WHERE status = 'Completed'")
    assert execute(database.dsn, "SELECT count(*) > 2000 FROM standing_changes") == [(True,)]
    assert database.run_sync(count_standings) is None
    assert execute(database.dsn, "SELECT * FROM standing_changes") == []
    check_standings(database)


def test_many_changes_at_once_are_added_though_there_were_none_when_that_was_planned(database: Database) -> None:
    add = """INSERT INTO standing_changes (day, status, change)
             SELECT '2001-01-01', CASE WHEN n % 2 = 0 THEN 'Paid' ELSE 'Shipped' END, 1
             FROM generate_series(1, 90000) n"""
    execute(database.dsn, f"{add}; DELETE FROM standing_changes; ANALYZE standing_changes")
    while database.run_sync(count_standings):  # its statements are planned meanwhile, for a table without a row
        pass
    execute(database.dsn, add)
    database.run_sync(count_standings)
    rows = execute(database.dsn, "SELECT status, orders FROM standing_days WHERE day = '2001-01-01' ORDER BY 1")
    assert rows == [("Paid", 45_000), ("Shipped", 45_000)]


def test_reports_over_http(service: Service, sandbox: Sandbox, dsn: str) -> None:
    product, other = sandbox.product(10, price=5, name="Tea"), sandbox.product(10, price=100, name="Pot")
    service.place(1, (product, 3), (other, 1))
    order = service.place(1, (product, 1)).body
    gone = service.place(1, (product, 2)).body
    service.move(gone["id"], "Cancelled")
    service.move(order["id"], "Paid")
    day = order["created_at"][:10]
    report = service.get(f"/reports/sales?from={day}&to={day}").body
    sums = {"orders": 2, "units": 5, "revenue": 120}
    assert report == {
        "from": day, "to": day, "by": "day", "channel": None, "currency": "USD",
        "periods": [{"from": day, "to": day, "channel": None, **sums}],
        "total": sums,
    }  # fmt: skip
    usual = service.get("/reports/sales?by=week").body
    assert usual["total"] == sums
    assert date.fromisoformat(usual["to"]) - date.fromisoformat(usual["from"]) == timedelta(days=29)
    assert [p["from"] for p in usual["periods"]][1:] == [
        (date.fromisoformat(p["to"]) + timedelta(days=1)).isoformat() for p in usual["periods"]
    ][:-1]
    products = service.get("/reports/products?by=revenue&limit=1").body["products"]
    assert products == [{"product_id": other, "name": "Pot", "orders": 1, "units": 1, "revenue": 100}]
    assert service.get("/reports/products").body["products"][0]["name"] == "Tea"
    statuses = service.get("/reports/statuses").body["statuses"]
    assert [(s["status"], s["orders"]) for s in statuses] == [("Ordered", 1), ("Paid", 1), ("Cancelled", 1)]
    assert statuses[1]["oldest_since"] == statuses[1]["median_since"] > statuses[0]["oldest_since"]
    execute(dsn, "UPDATE orders SET channel = 'web' WHERE id = %s", (order["id"],))
    web = service.get(f"/reports/sales?from={day}&to={day}&channel=web").body
    assert (web["channel"], web["total"]) == ("web", {"orders": 1, "units": 1, "revenue": 5})
    assert service.get("/reports/sales?by=channel").body["periods"] == [
        {"from": usual["from"], "to": usual["to"], "channel": None, "orders": 1, "units": 4, "revenue": 115},
        {"from": usual["from"], "to": usual["to"], "channel": "web", "orders": 1, "units": 1, "revenue": 5},
    ]
    assert [p["product_id"] for p in service.get("/reports/products?channel=web").body["products"]] == [product]
    assert [s["status"] for s in service.get("/reports/statuses?channel=web").body["statuses"]] == ["Paid"]
    assert service.get("/reports/sales?by=channel&channel=shop").body["periods"] == []
    for path in (
        "sales?by=year",
        "sales?channel=Web",
        "statuses?channel=",
        "sales?from=2026-02-30",
        "sales?from=2026-02-02&to=2026-02-01",
        "sales?from=1971-01-01&to=2026-01-01",
        "sales?from=0001-01-01&to=0001-01-01",
        "sales?colour=blue",
        "products?limit=0",
        "products?by=name",
        "statuses?by=day",
    ):
        problem(service.get(f"/reports/{path}"), 422, "invalid_request")
    assert service.get("/reports/sales?to=0001-01-01").status == 422
    assert service.get("/reports/sales?from=9999-12-31&to=9999-12-31").status == 200
