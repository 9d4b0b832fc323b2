"""The products of a run, and who fills up from outside what has run out.

The catalog knows neither locks nor increments, so whoever sets a stock while the service is at work on that product
undoes orders. Here the service is kept away: the product's row in `stock_claims` is held, quiet, while its stock is set
as the service itself would set it, the same value until it is seen, and until nothing of that can land any more.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from tests.chaos.http import Http, NoAnswer, NotReached

OUTSIDE = "outside"
"""The User-Agent of who restocks, as the catalog's journal has it."""

HOT, COLD, SCARCE = 6, 200, 40
STRAGGLERS_S = 5.0
"""Longer than a PUT of the restocker's can be on its way after it was given up."""

# Safe to repeat, after a connection that broke: a row that is quiet for so long is ours. A row comes back: it is done.
_HOLD = """
    INSERT INTO stock_claims AS c (product_id, lands_until) VALUES (%s, now() + interval '1 h')
    ON CONFLICT (product_id) DO UPDATE SET lands_until = excluded.lands_until
        WHERE c.batch_id IS NULL AND c.lands_until > now() + interval '30 min' RETURNING 1
"""
_RELEASE = "WITH released AS (DELETE FROM stock_claims WHERE product_id = %s AND batch_id IS NULL) SELECT 1"


@dataclass
class Shelf:
    """The products, and the stock that each began with."""

    initial: dict[int, int]
    hot: list[int]
    cold: list[int]
    scarce: list[int]
    restocked: Counter[int] = field(default_factory=Counter)
    """What was put in from outside, per product."""

    restock_count: int = 0

    sold_out: set[int] = field(default_factory=set)
    """Scarce products that a shopper has found empty."""

    def choose(self, chance: random.Random) -> dict[int, int]:
        """One to three products and how many of each: often a hot one, now and then one that runs out."""
        lines: dict[int, int] = {}
        for _ in range(chance.choice((1, 1, 2, 3))):
            kind = chance.choices((self.hot, self.cold, self.scarce), (37, 55, 8))[0]
            lines[chance.choice(kind)] = chance.randint(1, 3)
        return lines

    def found_empty(self, product_id: int) -> None:
        """A shopper was told that there is not enough of it."""
        if product_id in self.scarce:
            self.sold_out.add(product_id)


async def fill_shelf(http: Http, catalog_url: str, chance: random.Random) -> Shelf:
    """Give the catalog its products."""
    stocks = [1_000_000] * HOT + [20_000] * COLD + [chance.randint(10, 60) for _ in range(SCARCE)]
    products = [{"name": f"Volume {n}", "price": 10, "quantity": stock} for n, stock in enumerate(stocks, 1)]
    reply = await http.send("POST", f"{catalog_url}/products", products, patience_s=30)
    initial = {int(product["id"]): int(product["quantity"]) for product in reply.body["products"]}
    ids = list(initial)
    return Shelf(initial, ids[:HOT], ids[HOT : HOT + COLD], ids[HOT + COLD :])


class Restocking:
    """Fills up what has run out."""

    def __init__(self, shelf: Shelf, catalog_url: str, dsn: str, chance: random.Random) -> None:
        self._shelf = shelf
        self._url = catalog_url
        self._dsn = dsn
        self._chance = chance
        self._http = Http(OUTSIDE)
        self._begun: set[int] = set()
        self._is_over = False

    async def run(self) -> None:
        """Fill up what is sold out, until `finish`; a product is out of stock for some seconds before."""
        async with asyncio.TaskGroup() as restocking:
            while not self._is_over:
                for product_id in self._shelf.sold_out - self._begun:
                    self._begun.add(product_id)
                    restocking.create_task(self._restock(product_id))
                await asyncio.sleep(0.5)
        await self._http.close()

    def finish(self) -> None:
        """Begin nothing more; `run` returns when what was begun is done."""
        self._is_over = True

    async def _restock(self, product_id: int) -> None:
        await asyncio.sleep(self._chance.uniform(0, 8))
        await self._until_done(_HOLD, product_id)
        fields = await self._read(product_id)
        quantity = self._chance.randint(20, 80)
        wanted = int(fields["quantity"]) + quantity
        self._shelf.restocked[product_id] += quantity
        self._shelf.restock_count += 1
        while (await self._read(product_id))["quantity"] != wanted:
            await self._put(product_id, {**fields, "quantity": wanted})
        await asyncio.sleep(STRAGGLERS_S)
        await self._until_done(_RELEASE, product_id)
        self._shelf.sold_out.discard(product_id)
        self._begun.discard(product_id)

    async def _until_done(self, statement: str, product_id: int) -> None:
        while not await asyncio.to_thread(self._execute, statement, product_id):
            await asyncio.sleep(0.1)

    def _execute(self, statement: str, product_id: int) -> bool:
        """Whether it is done; not where the database does not answer."""
        try:
            connection = psycopg2.connect(self._dsn)
        except psycopg2.Error:
            return False
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, (product_id,))
                return cursor.fetchone() is not None
        except psycopg2.Error:
            return False
        finally:
            connection.close()

    async def _read(self, product_id: int) -> dict[str, Any]:
        while True:
            try:
                reply = await self._http.send("GET", f"{self._url}/products/{product_id}")
                return dict(reply.body["product_detail"])
            except (NotReached, NoAnswer, KeyError, TypeError, ValueError):
                await asyncio.sleep(0.3)

    async def _put(self, product_id: int, fields: Mapping[str, Any]) -> None:
        try:
            await self._http.send("PUT", f"{self._url}/products/{product_id}", fields)
        except (NotReached, NoAnswer):
            await asyncio.sleep(0.3)
