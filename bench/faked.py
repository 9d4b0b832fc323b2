"""Inserts alone: the service's own code places orders in one process, without HTTP, and with a dict as the catalog.

`python -m bench.faked CLIENTS SECONDS` prints orders per second. DATABASE_URL names the database.
"""

import asyncio
import itertools
import random
import sys
import time

import uvloop

from orders.machinery import machinery
from orders.neighbours.carts import Carts
from orders.neighbours.catalog import Catalog, Product, Written
from orders.order.model import Line
from orders.placing.checkout import Checkout, CheckoutRequest
from orders.principal import SEES_EVERYTHING
from orders.settings import load_settings

stock: dict[int, int] = dict.fromkeys(range(1, 10_001), 1_000_000)


async def read(_: Catalog, product_id: int, *_more: object) -> Product:
    """Catalog.read, from the dict."""
    quantity = stock[product_id]
    fields = {"id": product_id, "name": "Whispers of the Night", "price": 10, "quantity": quantity}
    return Product(product_id, "Whispers of the Night", 10, quantity, None, fields)


async def write(_: Catalog, product: Product, quantity: int, *_more: object, **_others: object) -> Written:
    """Catalog.write, to the dict."""
    stock[product.id] = quantity
    return Written.DONE


async def no_cart(_: Carts, *_more: object, **_others: object) -> None:
    """Carts.read: nobody has a cart."""


async def measure(clients: int, seconds: float) -> float:
    """Orders per second that this number of clients place. Each places its next order when it has the last answer."""
    settings = load_settings(catalog_url="http://nobody.invalid", cart_url="http://nobody.invalid")
    customers = itertools.count(random.SystemRandom().randrange(10**9, 10**12))
    placed = 0

    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)

        async def client(until: float) -> None:
            nonlocal placed
            while time.perf_counter() < until:
                lines = [Line(product_id, 1) for product_id in random.sample(range(1, 10_001), 2)]
                answer = await checkout.check_out(CheckoutRequest(SEES_EVERYTHING, next(customers), lines, None), "/")
                placed += answer.status == 201

        await asyncio.gather(*(client(time.perf_counter() + 0.5) for _ in range(clients)))  # warm up
        placed = 0
        began_at = time.perf_counter()
        await asyncio.gather(*(client(began_at + seconds) for _ in range(clients)))
        return placed / (time.perf_counter() - began_at)


if __name__ == "__main__":
    Catalog.read, Catalog.write, Carts.read = read, write, no_cart  # type: ignore[method-assign,assignment]
    print(uvloop.run(measure(int(sys.argv[1]), float(sys.argv[2]))))
