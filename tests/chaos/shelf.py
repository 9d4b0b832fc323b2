"""The products of a run: what is on sale, and what is put in from outside.

A product is restocked only while nobody orders it: it is taken off the shelf, every shopper who named it has gone, no
request that a frozen replica still holds can name it, and the service's tables know of nothing under way. Then its
stock is set as the service itself sets it: the same value until it is seen, and nothing else until no PUT can land any
more.
So the invariants can be exact although the catalog knows neither locks nor increments.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg2

from tests.chaos.http import Http, NoAnswer, NotReached

log = logging.getLogger(__name__)

OUTSIDE = "outside"
"""The User-Agent of who restocks, as the catalog's journal has it."""

HOT, COLD, SCARCE = 6, 200, 40
_PRICE = 10

_UNDER_WAY = """
    SELECT EXISTS (SELECT FROM stock_claims WHERE product_id = %(product)s)
        OR EXISTS (SELECT FROM stock_returns WHERE product_id = %(product)s AND returned_at IS NULL)
        OR EXISTS (SELECT FROM orders o JOIN order_items i ON i.order_id = o.id
                   WHERE o.status = 'Pending' AND i.product_id = %(product)s)
"""


@dataclass
class Shelf:
    """Which products there are, which of them are on sale, and the stock that each began with."""

    initial: dict[int, int]
    hot: list[int]
    cold: list[int]
    scarce: list[int]
    restocked: Counter[int] = field(default_factory=Counter)
    """What was put in from outside, per product."""

    sold_out: set[int] = field(default_factory=set)
    """Scarce products that a shopper has found empty."""

    _wanted_by: Counter[int] = field(default_factory=Counter)

    def choose(self, chance: random.Random) -> dict[int, int]:
        """One to three products and how many of each: often a hot one, now and then one that runs out."""
        lines: dict[int, int] = {}
        for _ in range(chance.choice((1, 1, 2, 3))):
            kind = chance.choices((self.hot, self.cold, self.scarce or self.cold), (35, 50, 15))[0]
            lines[chance.choice(kind)] = chance.randint(1, 3)
        return lines

    @contextmanager
    def wanted(self, lines: Mapping[int, int]) -> Iterator[None]:
        """As long as a shopper may still do something about these products."""
        self._wanted_by.update(lines.keys())
        try:
            yield
        finally:
            self._wanted_by.subtract(lines.keys())

    def is_wanted(self, product_id: int) -> bool:
        """Whether a shopper may still do something about this product."""
        return self._wanted_by[product_id] > 0

    def found_empty(self, product_id: int) -> None:
        """A shopper was told that there is not enough of it."""
        if product_id in self.scarce:
            self.sold_out.add(product_id)


async def fill_shelf(http: Http, catalog_url: str, chance: random.Random) -> Shelf:
    """Give the catalog its products."""
    stocks = [1_000_000] * HOT + [20_000] * COLD + [chance.randint(5, 40) for _ in range(SCARCE)]
    products = [{"name": f"Volume {n}", "price": _PRICE, "quantity": stock} for n, stock in enumerate(stocks, 1)]
    reply = await http.send("POST", f"{catalog_url}/products", products, patience_s=10)
    initial = {int(product["id"]): int(product["quantity"]) for product in reply.body["products"]}
    ids = list(initial)
    return Shelf(initial, ids[:HOT], ids[HOT : HOT + COLD], ids[HOT + COLD :])


class Restocking:
    """Fills up what has run out. `rest_s`: so long can a request survive in a replica after its client has gone."""

    def __init__(self, shelf: Shelf, catalog_url: str, dsn: str, chance: random.Random, rest_s: float) -> None:
        self._shelf = shelf
        self._url = catalog_url
        self._dsn = dsn
        self._chance = chance
        self._rest_s = rest_s
        self._http = Http(OUTSIDE)
        self._begun: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Take what is sold out off the shelf, and put it back filled up, until cancelled."""
        async with asyncio.TaskGroup() as resting:
            while True:
                while self._shelf.sold_out:
                    product_id = self._shelf.sold_out.pop()
                    self._shelf.scarce.remove(product_id)
                    resting.create_task(self._replenish(product_id))
                await asyncio.sleep(0.5)

    async def finish(self) -> None:
        """After `run` was cancelled: return when what was begun is in the catalog."""
        await asyncio.gather(*self._begun)
        await self._http.close()

    async def _replenish(self, product_id: int) -> None:
        while self._shelf.is_wanted(product_id):
            await asyncio.sleep(0.2)
        await asyncio.sleep(self._rest_s)
        while await asyncio.to_thread(self._is_under_way, product_id):
            await asyncio.sleep(0.5)
        restocking = asyncio.create_task(self._restock(product_id))
        self._begun.add(restocking)
        await asyncio.shield(restocking)
        await asyncio.sleep(self._rest_s)
        self._shelf.scarce.append(product_id)

    def _is_under_way(self, product_id: int) -> bool:
        """Whether the service is at work on this product; also where it can't be asked."""
        try:
            connection = psycopg2.connect(self._dsn)
        except psycopg2.Error:
            return True
        try:
            with connection.cursor() as cursor:
                cursor.execute(_UNDER_WAY, {"product": product_id})
                row = cursor.fetchone()
                return row is None or bool(row[0])
        except psycopg2.Error:
            return True
        finally:
            connection.close()

    async def _restock(self, product_id: int) -> None:
        quantity = self._chance.randint(5, 40)
        fields = await self._read(product_id)
        wanted = int(fields["quantity"]) + quantity
        self._shelf.restocked[product_id] += quantity
        while (await self._read(product_id))["quantity"] != wanted:
            await self._put(product_id, {**fields, "quantity": wanted})

    async def _read(self, product_id: int) -> dict[str, int]:
        while True:
            try:
                reply = await self._http.send("GET", f"{self._url}/products/{product_id}")
                return dict(reply.body["product_detail"])
            except (NotReached, NoAnswer, KeyError, TypeError, ValueError):
                await asyncio.sleep(0.3)

    async def _put(self, product_id: int, fields: Mapping[str, int]) -> None:
        try:
            await self._http.send("PUT", f"{self._url}/products/{product_id}", fields)
        except (NotReached, NoAnswer):
            await asyncio.sleep(0.3)
