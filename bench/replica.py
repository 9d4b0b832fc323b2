"""Comparisons of one replica alone: 9 (memory) and 10 (cold start)."""

import contextlib
import time
import urllib.error

from bench import load
from bench.comparison import Goal, Pace, Result, in_turn
from bench.load import Orders
from bench.world import neighbours, new_database, replica, sql

FEW = 2_000


def memory(server: str, pace: Pace) -> list[Result]:
    """9: the memory of one replica after few orders and after many."""
    dsn = new_database(server, "shop")
    with neighbours() as shelf, replica(dsn, shelf):
        pass  # makes the tables; the memory for that belongs to this process
    with neighbours() as shelf, replica(dsn, shelf) as ours:
        shelf.reset(quantity=1_000_000_000)
        # few products: placing these orders takes two minutes instead of four
        orders = Orders(ours.url, 128, last=100, lines=1)

        def place_until(count: int, seconds: float) -> int:
            give_up_at = time.monotonic() + pace.memory_s
            while (placed := _count(dsn)) < count and time.monotonic() < give_up_at:
                load.place(seconds, orders)
                print(f"\r    {placed:,} of {count:,} orders, {ours.rss_mb():.1f} MB", end="", flush=True)
            shelf.wait_until_idle()
            return _count(dsn)

        place_until(FEW, 1)
        before = ours.rss_mb()
        placed = place_until(pace.memory_orders, 5)
        after = ours.rss_mb()
    print(flush=True)
    work = f"memory of one replica after {placed:,} orders"
    return [
        Result(9, "memory, growth", work, "MB", [after], [before], f"after {FEW:,}", Goal(at_most=1.1)),
        Result(9, "memory, MB", f"{work}, in MB", "MB", [after], goal=Goal(at_most=100)),
    ]


def cold_start(server: str, pace: Pace) -> list[Result]:
    """10: the time from the start of the process to the first 200, with a database that has its tables."""
    dsn = new_database(server, "shop")
    with neighbours() as shelf:

        def start() -> float:
            with replica(dsn, shelf) as ours:
                while True:
                    with contextlib.suppress(urllib.error.URLError):
                        ours.get("/health")
                        return time.perf_counter() - ours.started_at

        start()  # makes the tables
        found = in_turn(pace.rounds, seconds=start)
    return [
        Result(
            10, "cold start", "cold start to the first 200 (`/health`)", "s", found["seconds"], goal=Goal(at_most=1.5)
        )
    ]


def _count(dsn: str) -> int:
    return int(sql(dsn, "SELECT count(*) FROM orders WHERE status = 'Ordered'")[0][0])
