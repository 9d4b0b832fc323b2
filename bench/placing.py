"""Comparisons of placing orders (1, 2, 3, 6, 8), and latency against offered load."""

import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from bench import load
from bench.comparison import Goal, Pace, Result, in_turn
from bench.load import Orders
from bench.world import BenchError, Neighbours, Server, neighbours, new_database, replica, serve, sql

COMMITS = 3  # CLAIM, INTEND, SETTLE
SLOW_S = 0.02


def against_the_naive_way(server: str, pace: Pace) -> list[Result]:
    """1: orders per second at 32 clients."""
    with ExitStack() as stack:
        shelf = stack.enter_context(neighbours())
        ours = stack.enter_context(replica(new_database(server, "shop"), shelf))
        naive = stack.enter_context(_naive(new_database(server, "naive"), shelf))
        _warm_up(shelf, ours, naive)
        found = in_turn(
            pace.rounds,
            orders=lambda: _rate(shelf, 5 * pace.scale, Orders(ours.url, 32)),
            naive=lambda: _rate(shelf, max(2, 6 * pace.scale), Orders(naive.url, 32)),
        )
    return [
        Result(
            1,
            "place, 32 clients",
            "place an order of 2 lines (10,000 products, uniform), 32 clients",
            "orders/s",
            found["orders"],
            found["naive"],
            "the naive way: per line GET, check, GET, PUT, a new connection each; one commit per order",
            Goal(at_least=75),
        )
    ]


def latency_of_one(server: str, pace: Pace) -> list[Result]:
    """2: the median at one client, beside the times that a GET, a PUT and the commits take alone."""
    with neighbours() as shelf, replica(new_database(server, "shop"), shelf) as ours:
        bare = new_database(server, "bare")
        sql(bare, "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)")
        _warm_up(shelf, ours)
        second = max(1, 2 * pace.scale)

        def unavoidable() -> float:
            get = load.alternate(second, shelf.url, 7, "GET").p50_ms
            put = load.alternate(second, shelf.url, 7, "PUT").p50_ms
            commit = load.pgbench(bare, "INSERT INTO notes (note) VALUES ('a commit of one row');", 1, second).p50_ms
            return get + put + COMMITS * commit

        found = in_turn(
            pace.rounds, orders=lambda: load.place(2 * second, Orders(ours.url, 1)).p50_ms, unavoidable=unavoidable
        )
    return [
        Result(
            2,
            "place, 1 client: latency",
            "the same at 1 client: median latency",
            "ms",
            found["orders"],
            found["unavoidable"],
            f"the sum of one GET, one PUT (wrk, 1 client) and {COMMITS} commits of one row (pgbench)",
            Goal(at_most=1.5),
        )
    ]


def flash_sale(server: str, pace: Pace) -> list[Result]:
    """3: one product, 256 clients, a slow catalog; and a sale that sells out, counted to the last unit."""
    with neighbours() as shelf:
        dsn = new_database(server, "shop")
        with replica(dsn, shelf) as ours:
            _warm_up(shelf, ours)
            one = Orders(ours.url, 256, first=1, last=1, lines=1)

            def serial() -> float:
                shelf.reset(products=1, delay_s=SLOW_S)
                return load.alternate(max(2, 3 * pace.scale), shelf.url, 1, "GET PUT").rate / 2

            found = in_turn(
                pace.rounds,
                orders=lambda: _rate(shelf, max(2, 5 * pace.scale), one, products=1, delay_s=SLOW_S),
                serial=serial,
            )
            seconds = max(2, 4 * pace.scale)
            note = _sell_out(dsn, shelf, seconds, ours.url, stock=round(min(found["orders"]) * seconds / 2))
    return [
        Result(
            3,
            "flash sale",
            "flash sale: one product, 256 clients, catalog with 20 ms per call",
            "orders/s",
            found["orders"],
            found["serial"],
            "serial GET then PUT: what the catalog allows one writer",
            Goal(at_least=60),
            note,
        )
    ]


def _sell_out(dsn: str, shelf: Neighbours, seconds: float, url: str, stock: int) -> str:
    """Sell a stock that does not suffice, and count the units sold. Raises BenchError if it was oversold."""
    before = _sold(dsn)  # the warm-up bought all of the products
    shelf.reset(products=2, quantity=stock, delay_s=SLOW_S)  # product 2: those that still buy product 1 do not disturb
    load.place(seconds, Orders(url, 256, first=2, last=2, lines=1))
    shelf.wait_until_idle()
    sold, left = _sold(dsn) - before, shelf.stock(2)
    if sold + left != stock:
        raise BenchError(f"Oversold: {sold} units of {stock} were sold and {left} are left.")
    return f"of a stock of {stock:,}, {sold:,} were sold and {left:,} are left: none oversold"


def _sold(dsn: str) -> int:
    """Number of units of product 2 that were ordered, counted once no order of it is in progress."""
    while sql(dsn, "SELECT FROM orders WHERE status = 'Pending'"):
        time.sleep(0.1)
    rows = sql(
        dsn,
        """SELECT coalesce(sum(i.quantity), 0)::bigint FROM order_items i JOIN orders o ON o.id = i.order_id
           WHERE o.status = 'Ordered' AND i.product_id = 2""",
    )
    return int(rows[0][0])


def inserts_alone(server: str, pace: Pace) -> list[Result]:
    """6: the service's own placing with a dict as the catalog, and pgbench writing the same rows."""
    dsn = new_database(server, "shop")
    with neighbours() as shelf, replica(dsn, shelf):
        pass  # makes the tables
    found = in_turn(
        pace.rounds,
        orders=lambda: _faked(dsn, 32, 5 * pace.scale),
        pgbench=lambda: load.pgbench(dsn, SAME_ROWS, 32, max(2, 5 * pace.scale)).rate,
    )
    return [
        Result(
            6,
            "inserts alone",
            "inserts alone: orders of 2 lines, 32 clients, in one process, catalog faked in it",
            "orders/s",
            found["orders"],
            found["pgbench"],
            "pgbench: the same rows, one statement and one commit per order, 32 clients",
            Goal(at_least=0.5),
        )
    ]


SAME_ROWS = r"""
\set customer random(1, 1000000000)
\set product random(1, 9999)
WITH o AS (INSERT INTO orders (id, customer_id, status, total, placed_at)
           VALUES (uuidv7(), :customer, 'Ordered', 20, now()) RETURNING id)
INSERT INTO order_items (order_id, product_id, quantity, name, unit_price)
    SELECT id, :product + line, 1, 'Whispers of the Night', 10 FROM o, generate_series(0, 1) line;
"""


def _faked(dsn: str, clients: int, seconds: float) -> float:
    command = [sys.executable, "-m", "bench.faked", str(clients), str(seconds)]
    done = subprocess.run(command, env={**os.environ, "DATABASE_URL": dsn}, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def two_replicas(server: str, pace: Pace) -> list[Result]:
    """8: 64 clients at one replica, or 32 at each of two. Both have the same 100 products, or 50 each."""
    with ExitStack() as stack:
        shelf = stack.enter_context(neighbours())
        dsn = new_database(server, "shop")
        one = stack.enter_context(replica(dsn, shelf))
        two = stack.enter_context(replica(dsn, shelf))
        _warm_up(shelf, one, two)
        seconds = 5 * pace.scale

        def rate(*loads: Orders) -> float:
            return _rate(shelf, seconds, *loads, products=100, delay_s=SLOW_S)

        found = in_turn(
            pace.rounds,
            one=lambda: rate(Orders(one.url, 64, last=100)),
            shared=lambda: rate(Orders(one.url, 32, last=100), Orders(two.url, 32, last=100)),
            disjoint=lambda: rate(Orders(one.url, 32, last=50), Orders(two.url, 32, first=51, last=100)),
        )
    against = "one replica, 64 clients"
    work = "two replicas, 32 clients each, 2 lines out of 100 products, catalog with 20 ms per call: "
    return [
        Result(
            8,
            "two replicas, shared",
            work + "shared products",
            "orders/s",
            found["shared"],
            found["one"],
            against,
            Goal(at_least=1),
        ),
        Result(
            8, "two replicas, disjoint", work + "50 products each", "orders/s", found["disjoint"], found["one"], against
        ),
    ]


def offered_load(server: str, pace: Pace) -> list[dict[str, Any]]:
    """Latency and refusals while orders come at fractions and multiples of what the service can place. An open loop."""
    points = []
    with neighbours() as shelf, replica(new_database(server, "shop"), shelf) as ours:
        _warm_up(shelf, ours)
        capacity = _rate(shelf, max(4, 6 * pace.scale), Orders(ours.url, 256))
        print(f"    capacity, 256 clients in a closed loop: {capacity:.0f} orders/s", flush=True)
        for share in pace.curve:
            seconds = (6 if share < 1 else 12) * max(0.5, pace.scale)  # the queue takes a while to fill
            point = {
                "offered": capacity * share,
                "share": share,
                "seconds": seconds,
                **load.offer(ours.url, capacity * share, seconds, 10_000),
                "rss_mb": ours.rss_mb(),
            }
            points.append(point)
            print(f"    {_sentence(point)}", flush=True)
            shelf.wait_until_idle()
    return points


def _sentence(point: dict[str, Any]) -> str:
    said = [
        f"{found['count']:,} answered {status}, median {found['p50_ms']:.0f} ms, 99 % {found['p99_ms']:.0f} ms"
        for status, found in point["answers"].items()
    ]
    late = f"the load came at most {point['lateness_p99_ms']:.0f} ms late (99 %)"
    return f"{point['share']:4.2f} of capacity: {'; '.join(said)}; {point['unanswered']} unanswered; {late}"


def _naive(dsn: str, shelf: Neighbours) -> AbstractContextManager[Server]:
    return serve(["bench.naive"], DATABASE_URL=dsn, CATALOG_URL=shelf.url)


def _warm_up(shelf: Neighbours, *servers: Server) -> None:
    """Send orders for a second, so that connections are open and caches filled before anything is measured."""
    shelf.reset()
    for server in servers:
        load.place(1, Orders(server.url, 32))


def _rate(shelf: Neighbours, seconds: float, *loads: Orders, **catalog: Any) -> float:
    """Orders per second, with a catalog that was begun anew. Raises BenchError if some were refused, or none was
    placed.
    """
    shelf.wait_until_idle()
    shelf.reset(**catalog)
    found = load.place(seconds, *loads)
    if found.refused:
        raise BenchError(f"{found.refused} orders were refused; a rate without them would be none.")
    if not found.rate:
        raise BenchError(f"Not one order was placed in {seconds:.0f} s; is something else running on this machine?")
    return found.rate
