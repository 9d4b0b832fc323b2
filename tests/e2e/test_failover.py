"""A primary that dies under load and a standby that takes its place; a database that falls silent."""

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg2
import pytest

from orders import database
from tests.conftest import Sandbox, execute, free_port, wait_until
from tests.e2e.conftest import Service, Start
from tests.e2e.test_survival import is_quiet, sold
from tests.servers import EMBEDDED, Cluster

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
    """Clients who order, every third time from a cart; who is told 503 or 409 asks again, with the same key."""
    seen: list[Seen] = []
    stop = threading.Event()

    def buy(buyer: int) -> None:
        chance = random.Random(buyer)
        while not stop.is_set():
            customer, service = next(_customers), replicas[buyer % len(replicas)]
            lines = [(product, chance.randint(1, 3)) for product in chance.sample(products, 2)]
            if from_cart := chance.random() < 1 / 3:
                sandbox.fill_cart(customer, *lines)
            while True:
                reply = service.place(
                    customer, *([] if from_cart else lines), headers={"Idempotency-Key": f"{customer}"}
                )
                if reply.status not in (409, 503):
                    break
                time.sleep(0.05)
            seen.append(Seen(time.monotonic(), reply.status, reply.body.get("id")))

    with ThreadPoolExecutor(8) as pool:
        buyers = [pool.submit(buy, buyer) for buyer in range(8)]
        try:
            yield seen
        finally:
            stop.set()
    for buyer in buyers:
        buyer.result()


def check(dsn: str, sandbox: Sandbox, products: Sequence[int], seen: Sequence[Seen]) -> None:
    """Nothing is lost, nothing doubled, nothing half-done: what is placed is what clients were told."""
    wait_until(lambda: is_quiet(dsn), "nothing is half-done", within_s=40)
    told = [answer.order_id for answer in seen if answer.status == 201]
    kept = [row[0] for row in execute(dsn, "SELECT id::text FROM orders WHERE placed_at IS NOT NULL")]
    assert sorted(map(str, told)) == sorted(kept)
    for product in products:
        assert sandbox.stock(product) == STOCK - sold(dsn, product)
    assert execute(dsn, "SELECT * FROM stock_drifts") == []


@pytest.fixture
def pair() -> Iterator[tuple[Cluster, Cluster]]:
    """A primary that acknowledges nothing before its standby has it, and the standby."""
    primary, standby = Cluster(EMBEDDED, free_port()), Cluster(EMBEDDED, free_port())
    try:
        primary.initialize()
        primary.start(synchronous_standby_names="standby")
        standby.copy(primary, "standby")
        standby.start()
        is_sync = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: execute(primary.dsn, is_sync), "the standby is synchronous")
        yield primary, standby
    finally:
        primary.remove()
        standby.remove()


def both(primary: Cluster, standby: Cluster) -> str:
    hosts = ",".join(f"127.0.0.1:{cluster.port}" for cluster in (primary, standby))
    return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"


def test_a_standby_takes_over_from_a_primary_that_dies_under_load(
    start: Start, sandbox: Sandbox, pair: tuple[Cluster, Cluster]
) -> None:
    primary, standby = pair
    products = [sandbox.product(STOCK) for _ in range(5)]
    replicas = [start(database_url=both(*pair)) for _ in range(2)]
    with buying(replicas, sandbox, products) as seen:
        time.sleep(3)
        killed_at = time.monotonic()
        primary.kill()
        promoting_at = time.monotonic()
        standby.promote()
        promoted_at = time.monotonic()
        wait_until(lambda: seen[-1].status == 201 and seen[-1].at > promoted_at, "orders are placed again", 60)
        time.sleep(2)
    placed_at = sorted(answer.at for answer in seen if answer.status == 201)
    last, first = max(t for t in placed_at if t < promoting_at), min(t for t in placed_at if t > promoting_at)
    print(
        f"\n{first - last:.2f} s without service: the last 201 was {killed_at - last:.2f} s before the kill, which took"
        f" {promoting_at - killed_at:.2f} s, the promotion {promoted_at - promoting_at:.2f} s, the first 201 came"
        f" {first - promoted_at:.2f} s later. {len(placed_at)} orders; others: {[s for s in seen if s.status != 201]}"
    )
    check(standby.dsn, sandbox, products, seen)
