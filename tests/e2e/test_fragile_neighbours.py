"""Neighbours that can't take two calls at once: orders of any number of lines succeed against them all the same."""

import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.conftest import answers, execute, free_port, wait_until
from tests.e2e.conftest import Start

ORDERS_EACH = 10
"""Orders of each size. The issue's search by hand is 100: ORDERS_TEST_MANY does it."""

SIZES = (1, 2, 3, 5, 10)
STOCK = 10_000
PRODUCTS = 37


@dataclass(frozen=True)
class Naive:
    """A naive catalog and a naive cart service, running."""

    catalog_url: str
    cart_url: str
    dsn: str

    def stock(self) -> dict[int, int]:
        return dict(execute(self.dsn, "SELECT id, quantity FROM naive.products"))

    def fill_cart(self, customer_id: int, *items: tuple[int, int]) -> None:
        execute(self.dsn, "INSERT INTO naive.carts (customer_id, status) VALUES (%s, 'Active')", (customer_id,))
        for product_id, quantity in items:
            execute(
                self.dsn,
                """INSERT INTO naive.cart_items (cart_id, product_id, quantity)
                   SELECT id, %s, %s FROM naive.carts WHERE customer_id = %s AND status = 'Active' RETURNING 1""",
                (product_id, quantity, customer_id),
            )


@pytest.fixture
def naive(dsn: str) -> Iterator[Naive]:
    ports = [free_port(), free_port()]
    commands = [[sys.executable, "-m", "tests.naive", str(port), dsn] for port in ports]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    running = Naive(*(f"http://127.0.0.1:{port}" for port in ports), dsn)
    wait_until(lambda: answers(running.catalog_url) and answers(running.cart_url), "the naive services answer")
    execute(
        dsn,
        "INSERT INTO naive.products (name, price, quantity) SELECT 'Whispers', 10, %s FROM generate_series(1, %s)",
        (STOCK, PRODUCTS),
    )
    yield running
    for process in processes:
        process.kill()
        process.wait()
    execute(dsn, "DROP SCHEMA naive CASCADE")


def lines(order: int, size: int) -> list[tuple[int, int]]:
    return [((order * size + n) % PRODUCTS + 1, 1) for n in range(size)]


def test_orders_of_any_size_and_carts_succeed_against_threads_that_share_a_cursor(start: Start, naive: Naive) -> None:
    service = start(catalog_url=naive.catalog_url, cart_url=naive.cart_url)
    wished: Counter[int] = Counter()
    customers = itertools.count(1)

    def place(size: int, customer: int) -> tuple[int, list[tuple[int, int]], object]:
        wanted = lines(customer, size)
        reply = service.place(customer, *wanted)
        return reply.status, wanted, reply.body

    for size in SIZES:
        for _ in range(ORDERS_EACH):  # one customer at a time
            status, wanted, body = place(size, next(customers))
            assert status == 201, body
            wished.update(dict(wanted))
    with ThreadPoolExecutor(8) as eight:
        jobs = [eight.submit(place, size, next(customers)) for size in SIZES for _ in range(ORDERS_EACH)]
        for status, wanted, body in [job.result() for job in jobs]:
            assert status == 201, body
            wished.update(dict(wanted))
        carts = [(next(customers), lines(n, 3)) for n in range(20)]
        for customer, wanted in carts:
            naive.fill_cart(customer, *wanted)
        for reply in eight.map(lambda cart: service.place(cart[0]), carts):
            assert reply.status == 201, reply.body
        wished.update(product for _, wanted in carts for product, _ in wanted)
    assert naive.stock() == {product: STOCK - wished[product] for product in range(1, PRODUCTS + 1)}
