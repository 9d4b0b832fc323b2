"""Comparisons of reading orders (4, 5, 7)."""

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench import load
from bench.comparison import Goal, Pace, Result, in_turn
from bench.rows import customer_paths, filled_database, order_paths, report_paths, write_paths
from bench.world import BenchError, Server, neighbours, replica, serve, sql

FEW = 10_000
PAGE = 1_000
PAGE_SIZE = 5  # small enough that the few orders have a page 1,000 of Completed ones too


class Reading(NamedTuple):
    """A replica over the few orders, and the bare endpoint with the bytes of one of its replies."""

    dsn: str
    ours: Server
    bare: Server
    path: str  # one of the paths that are read
    paths: Path
    bare_paths: Path


def one_order(server: str, pace: Pace) -> list[Result]:
    """4: GET /orders/{order_id} beside the bare endpoint."""
    with _reading(server, "order") as r:
        found = in_turn(
            pace.rounds,
            orders=lambda: load.get(4 * pace.scale, r.ours.url, r.paths, 32).rate,
            bare=lambda: load.get(4 * pace.scale, r.bare.url, r.bare_paths, 32).rate,
        )
    return [
        Result(
            4,
            "one order",
            "`GET /orders/{order_id}`, 32 clients",
            "requests/s",
            found["orders"],
            found["bare"],
            "a bare endpoint (bench/bare.py): the same bytes, framework and server",
            Goal(at_least=0.7),
        )
    ]


def one_page(server: str, pace: Pace) -> list[Result]:
    """5: GET /orders/{customer_id}, 50 orders, beside the bare endpoint and beside its own query in pgbench."""
    with _reading(server, "page") as r:
        query = _query_of(r)
        found = in_turn(
            pace.rounds,
            orders=lambda: load.get(4 * pace.scale, r.ours.url, r.paths, 32).rate,
            bare=lambda: load.get(4 * pace.scale, r.bare.url, r.bare_paths, 32).rate,
            pgbench=lambda: load.pgbench(r.dsn, query, 32, max(2, 4 * pace.scale), mode="simple").rate,
        )
    work = "`GET /orders/{customer_id}`, page of 50, 32 clients"
    against = "a bare endpoint with the same bytes"
    return [
        Result(5, "page of 50", work, "requests/s", found["orders"], found["bare"], against, Goal(at_least=0.4)),
        Result(
            5,
            "page of 50, SQL",
            work,
            "requests/s",
            found["orders"],
            found["pgbench"],
            "its own query in pgbench, 32 clients",
        ),
    ]


class Work(NamedTuple):
    """One request that is measured with few orders in the database, and with many."""

    label: str
    work: str
    few: Path
    many: Path
    goal: Goal
    is_slow: bool = False  # measured longer: wrk takes whole seconds, and needs many answers


def many_orders(server: str, pace: Pace) -> list[Result]:
    """7: latency at one client with many orders in the tables, and with few."""
    with ExitStack() as stack:
        shelf = stack.enter_context(neighbours())
        few_dsn, many_dsn = (filled_database(server, orders) for orders in (FEW, pace.many_orders))
        few, many = (stack.enter_context(replica(dsn, shelf)) for dsn in (few_dsn, many_dsn))
        pages = Work(
            f"page {PAGE:,}",
            f"page {PAGE:,} of `GET /orders?status=Completed`",
            _deep_pages(few, "few"),
            _deep_pages(many, "many"),
            Goal(at_most=1.25),
        )
        works = [*_single_reads(few_dsn, many_dsn), pages, *_reports(few_dsn, many_dsn)]
        return [_few_and_many(work, few, many, pace) for work in works]


def _single_reads(few: str, many: str) -> Iterator[Work]:
    goal, one, page = Goal(at_most=1.25), "`GET /orders/{order_id}`", "`GET /orders/{customer_id}`, page of 50"
    yield Work("one order", one, order_paths(few, 3000), order_paths(many, 3000), goal)
    yield Work("page of 50", page, customer_paths(few, 100), customer_paths(many, 100), goal)


def _reports(few: str, many: str) -> Iterator[Work]:
    """Measurements of reports. They count more if there is more, so their times are told, and no goal is set."""
    of_few, of_many = report_paths(few), report_paths(many)
    for name, paths in of_few.items():
        yield Work(
            f"{name} report", f"`GET /reports/{name}`, over all days", paths, of_many[name], Goal(), is_slow=True
        )


def _few_and_many(work: Work, few: Server, many: Server, pace: Pace) -> Result:
    print(f"    {work.work}", flush=True)

    def latency_ms(server: Server, paths: Path) -> float:
        if work.is_slow:
            return median(_timed_ms(server, paths.read_text().strip()) for _ in range(3))
        return load.get(2 * pace.scale, server.url, paths, 1).p50_ms

    if not work.is_slow:
        for server, paths in ((few, work.few), (many, work.many)):
            load.get(3 * pace.scale, server.url, paths, 8)  # fills the cache
    found = in_turn(pace.rounds, many=lambda: latency_ms(many, work.many), few=lambda: latency_ms(few, work.few))
    return Result(
        7,
        f"{work.label}, many orders",
        f"{work.work}, median latency at 1 client with {pace.many_orders:,} orders in the tables",
        "ms",
        found["many"],
        found["few"],
        f"with {FEW:,}",
        work.goal,
    )


def _timed_ms(server: Server, path: str) -> float:
    began_at = time.perf_counter()
    server.get(path)
    return (time.perf_counter() - began_at) * 1000


@contextmanager
def _reading(server: str, what: str) -> Iterator[Reading]:
    dsn = filled_database(server, FEW)
    paths = order_paths(dsn, FEW) if what == "order" else customer_paths(dsn, FEW)
    path = paths.read_text().split()[0]
    with TemporaryDirectory() as folder, neighbours() as shelf, replica(dsn, shelf) as ours:
        Path(folder, what).write_bytes(ours.get(path))
        with serve(["bench.bare"], BODIES=folder) as bare:
            _require_same_server(ours, path, bare, f"/bare/{what}")
            yield Reading(dsn, ours, bare, path, paths, write_paths("bare", [f"/bare/{what}"]))


def _require_same_server(ours: Server, path: str, bare: Server, bare_path: str) -> None:
    """Raise BenchError if the two answer through different servers, or with bodies of different length."""
    names = []
    for url in (ours.url + path, bare.url + bare_path):
        with urllib.request.urlopen(url) as reply:
            names.append((reply.headers["server"], len(reply.read())))
    if names[0] != names[1]:
        raise BenchError(f"The service answers as {names[0]}, the bare endpoint as {names[1]}; see bench/bare.py.")


def _query_of(r: Reading) -> str:
    """The query that the service sends for a customer's page. pgbench draws the customer."""
    customer = r.path.removeprefix("/orders/").split("?")[0]
    r.ours.get(r.path)
    sent = sql(
        r.dsn,
        r"""SELECT query FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'orders'
            AND query ~ ('\m' || %s || '\M') ORDER BY query_start DESC""",
        (customer,),
    )
    if not sent:
        raise BenchError("The service's query for a page is not to be seen in pg_stat_activity.")
    customers = sql(r.dsn, "SELECT max(customer_id) FROM orders")[0][0]
    return f"\\set customer random(1, {customers})\n{_with_variable(sent[0][0], customer)};\n"


def _with_variable(query: str, customer: str) -> str:
    parts = query.split(f"customer_id = {customer}")
    if len(parts) != 2:
        raise BenchError("The service's query for a page names the customer in another way than `customer_id = …`.")
    return "customer_id = :customer".join(parts)


def _deep_pages(ours: Server, name: str) -> Path:
    """A file with the paths of the hundred pages up to page 1,000, found by turning all pages."""
    path = f"/orders?status=Completed&limit={PAGE_SIZE}"
    paths = [path]
    while len(paths) < PAGE:
        paths.append(json.loads(ours.get(paths[-1]))["next"])
    return write_paths(f"pages-{name}", paths[-100:])
