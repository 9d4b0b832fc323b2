"""Reading orders: comparisons 4, 5 and 7."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench import load
from bench.comparison import Goal, Pace, Result, in_turn
from bench.rows import customer_paths, filled_database, order_paths, write_paths
from bench.world import BenchError, Server, neighbours, replica, serve, sql

FEW = 10_000
PAGE = 1_000
PAGE_SIZE = 5  # so that the few orders have a page 1,000 of Completed ones too


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


def many_orders(server: str, pace: Pace) -> list[Result]:
    """7: latency at one client with many orders in the tables, and with few."""
    results = []
    with ExitStack() as stack:
        shelf = stack.enter_context(neighbours())
        few_dsn, many_dsn = (filled_database(server, orders) for orders in (FEW, pace.many_orders))
        few, many = (stack.enter_context(replica(dsn, shelf)) for dsn in (few_dsn, many_dsn))
        for label, work, few_paths, many_paths in (
            ("one order", "`GET /orders/{order_id}`", order_paths(few_dsn, 3000), order_paths(many_dsn, 3000)),
            (
                "page of 50",
                "`GET /orders/{customer_id}`, page of 50",
                customer_paths(few_dsn, 100),
                customer_paths(many_dsn, 100),
            ),
            (
                f"page {PAGE:,}",
                f"page {PAGE:,} of `GET /orders?status=Completed`",
                _deep_pages(few, "few"),
                _deep_pages(many, "many"),
            ),
        ):
            print(f"    {work}", flush=True)
            for replica_, paths in ((few, few_paths), (many, many_paths)):
                load.get(3 * pace.scale, replica_.url, paths, 8)  # what the cache can hold is in it
            found = in_turn(
                pace.rounds,
                many=lambda paths=many_paths: load.get(2 * pace.scale, many.url, paths, 1).p50_ms,
                few=lambda paths=few_paths: load.get(2 * pace.scale, few.url, paths, 1).p50_ms,
            )
            title = f"{work}, median latency at 1 client with {pace.many_orders:,} orders in the tables"
            results.append(
                Result(
                    7,
                    f"{label}, {pace.many_orders:,} orders",
                    title,
                    "ms",
                    found["many"],
                    found["few"],
                    f"with {FEW:,}",
                    Goal(at_most=1.25),
                )
            )
    return results


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
    """Raises BenchError where the two answer through different servers, or with bodies of different length."""
    names = []
    for url in (ours.url + path, bare.url + bare_path):
        with urllib.request.urlopen(url) as reply:
            names.append((reply.headers["server"], len(reply.read())))
    if names[0] != names[1]:
        raise BenchError(f"The service answers as {names[0]}, the bare endpoint as {names[1]}; see bench/bare.py.")


def _query_of(r: Reading) -> str:
    """The query that the service sends for a customer's page, with the customer drawn by pgbench."""
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
    """A file with the paths of the hundred pages that lead to page 1,000, found by turning them all."""
    path = f"/orders?status=Completed&limit={PAGE_SIZE}"
    paths = [path]
    while len(paths) < PAGE:
        paths.append(json.loads(ours.get(paths[-1]))["next"])
    return write_paths(f"pages-{name}", paths[-100:])
