"""Comparison of requests with an API key and without (11)."""

from collections.abc import Callable
from pathlib import Path

from bench import load
from bench.comparison import Goal, Pace, Result, in_turn
from bench.load import Orders
from bench.rows import filled_database, order_paths
from bench.world import Neighbours, Server, neighbours, replica
from orders.access.granting import Caller, Grant
from orders.access.keys_sql import create_key
from orders.postgres.database import opened
from orders.principal import ALL_SCOPES

FEW = 10_000


def with_a_key(server: str, pace: Pace) -> list[Result]:
    """11: the CPU of a request with a key beside one without, of one process that is open to both."""
    dsn = filled_database(server, FEW)
    with neighbours() as shelf, replica(dsn, shelf, ORDERS_ACCESS="open") as ours:
        with opened(dsn) as connection:
            key = create_key(connection, Grant("bench", ALL_SCOPES), Caller("cli"))[0]
        shelf.reset()
        paths = order_paths(dsn, FEW)
        reads = {name: _reading(ours, paths, 4 * pace.scale, text) for name, text in (("key", key), ("none", ""))}
        writes = {name: _placing(ours, shelf, 4 * pace.scale, text) for name, text in (("key", key), ("none", ""))}
        reads["key"](), writes["key"]()  # warm: caches, connections, and the key
        rounds = 2 * pace.rounds
        found, placed = in_turn(rounds, **reads), in_turn(rounds, **writes)
    return [
        _result("one order, with a key", "`GET /orders/{order_id}` with a key, 32 clients: CPU of the service", found),
        _result("place, with a key", "place an order of 2 lines with a key, 32 clients: CPU of the service", placed),
    ]


def _result(label: str, work: str, found: dict[str, list[float]]) -> Result:
    return Result(11, label, work, "µs", found["key"], found["none"], "without a key", Goal(at_most=1.03))


def _reading(ours: Server, paths: Path, seconds: float, key: str) -> Callable[[], float]:
    def measure() -> float:
        before = ours.cpu_s()
        done = load.get(seconds, ours.url, paths, 32, key)
        return 1e6 * (ours.cpu_s() - before) / (done.rate * done.seconds)

    return measure


def _placing(ours: Server, shelf: Neighbours, seconds: float, key: str) -> Callable[[], float]:
    def measure() -> float:
        shelf.wait_until_idle()
        before = ours.cpu_s()
        done = load.place(seconds, Orders(ours.url, 32, key=key))
        return 1e6 * (ours.cpu_s() - before) / (done.rate * done.seconds)

    return measure
