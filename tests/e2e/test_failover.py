"""A primary that dies under load and a standby that takes its place; a database that falls silent."""

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg2
import pytest

from orders.order.statuses import load_workflow
from orders.postgres import database
from orders.startup import install_functions, set_workflow
from tests import servers
from tests.conftest import Sandbox, debian_cluster, execute, free_port, wait_until
from tests.e2e.conftest import Service, Start
from tests.e2e.test_survival import is_quiet, sold
from tests.servers import EMBEDDED, Cluster, Wire

STOCK = 100_000
_customers = itertools.count(int(time.time()) * 10)


@dataclass(frozen=True)
class Seen:
    """What a client was told at last, and when."""

    at: float
    status: int
    order_id: str | None


@contextlib.contextmanager
def buying(replicas: Sequence[Service], sandbox: Sandbox, products: Sequence[int]) -> Iterator[list[Seen]]:
    """Eight clients who keep ordering while the body runs; what they are told."""
    seen: list[Seen] = []
    stop = threading.Event()

    def keep_buying(buyer: int) -> None:
        chance = random.Random(buyer)
        while not stop.is_set():
            seen.append(buy(replicas[buyer % len(replicas)], sandbox, products, chance, stop))

    with ThreadPoolExecutor(8) as pool:
        buyers = [pool.submit(keep_buying, buyer) for buyer in range(8)]
        try:
            yield seen
        except BaseException:
            for replica in replicas:
                replica.kill()  # a client whose order is in doubt would wait for a database that the test has given up
            raise
        finally:
            stop.set()
    for buyer in buyers:
        buyer.result()


def buy(
    service: Service, sandbox: Sandbox, products: Sequence[int], chance: random.Random, stop: threading.Event
) -> Seen:
    """One purchase, of items or now and then of a cart. Who is told 503 or 409 asks again, with the same key."""
    customer = next(_customers)
    lines = [(product, chance.randint(1, 3)) for product in chance.sample(products, 2)]
    if chance.random() < 1 / 3:
        sandbox.fill_cart(customer, *lines)
        lines = []
    while True:
        reply = service.place(customer, *lines, headers={"Idempotency-Key": f"key-{customer}"})
        if reply.status not in (409, 503) or stop.is_set():
            return Seen(time.monotonic(), reply.status, reply.body.get("id"))
        time.sleep(0.05)


def wait_for_an_order(seen: Sequence[Seen]) -> None:
    """Return once an order is placed from now on."""
    now = time.monotonic()
    wait_until(lambda: seen and seen[-1].status == 201 and seen[-1].at > now, "an order is placed")


def check(dsn: str, sandbox: Sandbox, products: Sequence[int], seen: Sequence[Seen]) -> None:
    """Nothing is lost, nothing doubled, nothing half-done: what is placed is what clients were told."""
    wait_until(lambda: is_quiet(dsn), "nothing is half-done")
    told = [answer.order_id for answer in seen if answer.status == 201]
    kept = [row[0] for row in execute(dsn, "SELECT id::text FROM orders WHERE placed_at IS NOT NULL")]
    assert sorted(map(str, told)) == sorted(kept)
    for product in products:
        assert sandbox.stock(product) == STOCK - sold(dsn, product)
    assert execute(dsn, "SELECT * FROM stock_record WHERE kind = 'in doubt'") == []


@dataclass(frozen=True)
class Pair:
    """A primary that acknowledges nothing before its standby has it, and the wire that the standby follows it by."""

    primary: Cluster
    standby: Cluster
    wire: Wire

    @property
    def dsn(self) -> str:
        hosts = ",".join(f"127.0.0.1:{cluster.port}" for cluster in (self.primary, self.standby))
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"


@pytest.fixture
def pair() -> Iterator[Pair]:
    primary, standby = Cluster(EMBEDDED, free_port()), Cluster(EMBEDDED, free_port())
    wire = Wire(primary.dsn)
    try:
        primary.initialize()
        primary.start(synchronous_standby_names="standby")
        standby.copy(psycopg2.extensions.make_dsn(primary.dsn, port=wire.port, application_name="standby"))
        standby.start()
        is_sync = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: execute(primary.dsn, is_sync), "the standby is synchronous")
        yield Pair(primary, standby, wire)
    finally:
        wire.close()
        primary.remove()
        standby.remove()


@pytest.mark.parametrize("is_cut_off", [False, True], ids=["", "and had lost its standby a second before"])
def test_a_standby_takes_over_from_a_primary_that_dies_under_load(
    is_cut_off: bool, pair: Pair, start: Start, sandbox: Sandbox
) -> None:
    products = [sandbox.product(STOCK) for _ in range(5)]
    replicas = [start(database_url=pair.dsn) for _ in range(2)]
    with buying(replicas, sandbox, products) as seen:
        wait_until(lambda: len(seen) > 50, "orders are placed")
        if is_cut_off:
            pair.wire.fall_silent()
            time.sleep(1)
        pair.primary.kill()
        promoting_at = time.monotonic()
        pair.standby.promote()
        promoted_at = time.monotonic()
        wait_for_an_order(seen)
        time.sleep(2)
    placed_at = sorted(answer.at for answer in seen if answer.status == 201)
    last, first = max(t for t in placed_at if t < promoted_at), min(t for t in placed_at if t > promoted_at)
    print(
        f"\n{first - last:.2f} s without service: {promoting_at - last:.2f} s until the promotion began,"
        f" {promoted_at - promoting_at:.2f} s until it was done, {first - promoted_at:.2f} s until the next 201."
        f" {len(placed_at)} orders, {len(seen) - len(placed_at)} refused."
    )
    check(pair.standby.dsn, sandbox, products, seen)


def test_on_a_standby_it_answers_503_until_the_standby_is_promoted(pair: Pair, start: Start, sandbox: Sandbox) -> None:
    """A name, or a pooler, may lead to a server that only reads."""
    primary, standby = pair.primary, pair.standby
    database.migrate(primary.dsn)
    install_functions(primary.dsn)
    set_workflow(primary.dsn, load_workflow(), replace=False)
    has_tables = "SELECT to_regclass('order_workflow') IS NOT NULL"
    wait_until(lambda: execute(standby.dsn, has_tables) == [(True,)], "the tables are there")
    wait_until(lambda: execute(standby.dsn, "SELECT 1 FROM order_workflow"), "the table of statuses is there")
    service, product = start(database_url=standby.dsn), sandbox.product(5)
    refused = service.place(next(_customers), (product, 1))
    assert (refused.status, refused.body["code"]) == (503, "database_unavailable")
    assert service.get("/orders").status == 200
    primary.kill()
    standby.promote()
    wait_until(lambda: service.place(next(_customers), (product, 1)).status == 201, "orders are placed")


def test_while_the_standby_is_away_nothing_is_acknowledged(pair: Pair, start: Start, sandbox: Sandbox) -> None:
    """Each commit waits for it, and no statement is cancelled: that would make a commit look done."""
    products = [sandbox.product(STOCK) for _ in range(2)]
    service = start(database_url=pair.dsn)
    with buying([service], sandbox, products) as seen:
        wait_until(lambda: len(seen) > 20, "orders are placed")
        pair.standby.stop()
        time.sleep(1)  # for answers that are on their way
        stopped_at = time.monotonic()
        refused = service.place(next(_customers), (sandbox.product(5), 1))
        assert (refused.status, refused.body["code"]) == (503, "database_unavailable")
        assert not [answer for answer in seen if answer.status == 201 and answer.at > stopped_at]
        pair.standby.start()
        wait_for_an_order(seen)
    check(pair.primary.dsn, sandbox, products, seen)


@pytest.mark.parametrize("end", [Cluster.stop, Cluster.kill], ids=["stopped", "killed"])
def test_a_server_behind_a_pooler_goes_away_and_comes_back(
    end: Callable[[Cluster], None], start: Start, sandbox: Sandbox
) -> None:
    cluster = debian_cluster()
    products = [sandbox.product(STOCK) for _ in range(5)]
    try:
        cluster.start(fsync="off")
        with servers.pooled(cluster) as dsn:
            replicas = [start(database_url=dsn) for _ in range(2)]
            with buying(replicas, sandbox, products) as seen:
                wait_until(lambda: len(seen) > 50, "orders are placed")
                end(cluster)
                assert replicas[0].get("/orders").status == 503
                cluster.start(fsync="off")
                wait_for_an_order(seen)
            check(dsn, sandbox, products, seen)
            for replica in replicas:
                replica.kill()
    finally:
        cluster.remove()


def test_a_database_that_falls_silent_costs_no_restart(start: Start, sandbox: Sandbox, dsn: str) -> None:
    """No reset, no end of file: as when its host vanishes."""
    wire = Wire(dsn)
    products = [sandbox.product(STOCK) for _ in range(5)]
    service = start(database_url=psycopg2.extensions.make_dsn(dsn, host="127.0.0.1", port=wire.port))
    with buying([service], sandbox, products) as seen:
        wait_until(lambda: len(seen) > 20, "orders are placed")
        wire.fall_silent()
        assert {service.get(path).status for path in ("/orders", "/health")} == {503}
        wire.mend()
        wait_for_an_order(seen)
    wire.close()
    check(dsn, sandbox, products, seen)
