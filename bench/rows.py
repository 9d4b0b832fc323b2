"""Databases with many orders. Each is made once, kept under .data/bench, and used again by the next run."""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.world import DATA, database, new_database, sql
from orders.postgres.database import migrate

ORDERS_PER_CUSTOMER = 100
CHUNK = 250_000

# Orders have one and two lines in turn. Six of ten are Completed. A customer's orders are far apart, as in real life.
ROWS = """
    SET session_replication_role = replica;  -- checks no foreign key, which would be most of the work
    WITH made AS (
        INSERT INTO orders (id, customer_id, status, total, created_at, updated_at, placed_at)
        SELECT uuidv7(age), 1 + n %% %(customers)s,
               (ARRAY['Completed', 'Completed', 'Completed', 'Completed', 'Completed', 'Completed',
                      'Ordered', 'Paid', 'Shipped', 'Delivered'])[1 + n / %(customers)s %% 10],
               10 * (1 + n %% 2), now() + age, now() + age, now() + age
        FROM (SELECT n, (n - %(orders)s) * interval '1 s' AS age FROM generate_series(%(first)s, %(last)s) n) o
        RETURNING id, number, total)
    INSERT INTO order_items (order_id, product_id, quantity, name, unit_price)
        SELECT id, 1 + (number * 7919 + line) %% 10000, 1, 'Whispers of the Night', 10
        FROM made, generate_series(1, total / 10) line
"""


def filled_database(server: str, orders: int) -> str:
    """The DSN of a database with this number of orders, in tables of the newest version."""
    name = f"filled_{orders}"
    if not sql(server, "SELECT FROM pg_database WHERE datname = %s", (name,)):
        began_at = time.perf_counter()
        _fill(server, new_database(server, f"{name}_unfinished"), orders)
        sql(server, f"ALTER DATABASE {name}_unfinished RENAME TO {name}")
        print(
            f"    made {orders:,} orders in {time.perf_counter() - began_at:.0f} s; they are kept in {DATA}", flush=True
        )
    dsn = database(server, name)
    migrate(dsn)
    return dsn


def _fill(server: str, dsn: str, orders: int) -> None:
    migrate(dsn)
    _set(server, "max_wal_size = '4GB'")  # a checkpoint now and then, not one a second
    indexes = sql(
        dsn,
        """SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('orders', 'order_items')
           AND schemaname = 'public' AND indexname NOT IN (SELECT conname FROM pg_constraint)""",
    )
    for name, _ in indexes:
        sql(dsn, f"DROP INDEX {name}")

    def insert(first: int) -> int:
        last = min(first + CHUNK, orders) - 1
        customers = orders // ORDERS_PER_CUSTOMER
        sql(dsn, ROWS, {"first": first, "last": last, "orders": orders, "customers": customers})
        return last + 1

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for done in threads.map(insert, range(0, orders, CHUNK)):
            print(f"\r    {done:,} of {orders:,} orders", end="", flush=True)
        print("; their indexes", flush=True)
        list(threads.map(lambda index: sql(dsn, f"SET maintenance_work_mem = '512MB'; {index[1]}"), indexes))
        list(threads.map(lambda table: sql(dsn, f"VACUUM (ANALYZE) {table}"), ("orders", "order_items")))
    print("    days that are over are summed up", flush=True)
    while sql(dsn, "SELECT sum_up_a_day()") != [(None,)]:  # as replicas do, but without pauses
        pass
    sql(dsn, "VACUUM (ANALYZE) sales_days, sales_of_products")
    _set(server, "max_wal_size = DEFAULT")
    sql(server, "CHECKPOINT")


def _set(server: str, setting: str) -> None:
    sql(server, f"ALTER SYSTEM SET {setting}")
    sql(server, "SELECT pg_reload_conf()")


def order_paths(dsn: str, count: int) -> Path:
    """A file with the paths of this number of orders, drawn evenly."""
    newest = sql(dsn, "SELECT max(number) FROM orders")[0][0]
    numbers = random.sample(range(1, newest + 1), min(count, newest))
    rows = sql(dsn, "SELECT id FROM orders WHERE number = ANY(%s) ORDER BY random()", (numbers,))
    return _paths_file("orders", dsn, [f"/orders/{order_id}" for (order_id,) in rows])


def customer_paths(dsn: str, count: int) -> Path:
    """A file with the paths of the first pages of 50 of this number of customers, drawn evenly."""
    last = sql(dsn, "SELECT max(customer_id) FROM orders")[0][0]
    customers = random.sample(range(1, last + 1), min(count, last))
    return _paths_file("customers", dsn, [f"/orders/{customer}?limit=50" for customer in customers])


def report_paths(dsn: str) -> dict[str, Path]:
    """A file for each report with its path, over all days that there are."""
    days = sql(
        dsn, "SELECT min(created_at AT TIME ZONE 'UTC')::date, max(created_at AT TIME ZONE 'UTC')::date FROM orders"
    )
    span = "from={}&to={}".format(*days[0])
    paths = {"sales": f"sales?by=week&{span}", "products": f"products?{span}", "statuses": "statuses"}
    return {report: _paths_file(report, dsn, [f"/reports/{path}"]) for report, path in paths.items()}


def write_paths(name: str, paths: list[str]) -> Path:
    """A file with these paths."""
    file = DATA / f"{name}.paths"
    file.write_text("\n".join(paths) + "\n")
    return file


def _paths_file(what: str, dsn: str, paths: list[str]) -> Path:
    return write_paths(f"{what}-{sql(dsn, 'SELECT current_database()')[0][0]}", paths)
