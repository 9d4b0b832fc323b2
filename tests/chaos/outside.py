"""Changes of the stock from outside, in the two ways that keep the books exact.

With ETags, they come at any moment, with `If-Match`. The first writer wins, and the other one has to look again.
Without ETags, the service is kept away: the product's row in `stock_claims` is held, quiet. The stock is then set in
the way of the service: the same value until it is seen, and no other until none of it can land any more.
"""

import asyncio
import random
from typing import Any
from uuid import uuid4

import psycopg2

from tests.chaos.http import Http, NoAnswer, NotReached, Reply
from tests.chaos.processes import Neighbour
from tests.chaos.shelf import Shelf

OUTSIDE = "outside"
"""User-Agent of these PUTs. By it the catalog's journal tells them from the service's."""

STRAGGLERS_S = 5.0
"""Maximum time that such a PUT can be under way after it was given up."""

# Safe to repeat after a connection that broke: a row that is quiet for so long is ours. If a row comes back, it is
# done.
_HOLD = """
    INSERT INTO stock_claims AS c (product_id, lands_until) VALUES (%s, now() + interval '1 h')
    ON CONFLICT (product_id) DO UPDATE SET lands_until = excluded.lands_until
        WHERE c.batch_id IS NULL AND c.lands_until > now() + interval '30 min' RETURNING 1
"""
_RELEASE = "WITH released AS (DELETE FROM stock_claims WHERE product_id = %s AND batch_id IS NULL) SELECT 1"


class Outside:
    """Refills products that have run out, and edits contested ones."""

    def __init__(self, shelf: Shelf, catalog: Neighbour, dsn: str, chance: random.Random) -> None:
        self._shelf = shelf
        self._catalog = catalog
        self._dsn = dsn
        self._chance = chance
        self._http = Http(OUTSIDE)
        self._filling: set[int] = set()
        self._is_over = False

    async def run(self) -> None:
        """Work until `finish` is called, and what was begun is done."""
        async with asyncio.TaskGroup() as work:
            work.create_task(self._edit_now_and_then())
            while not self._is_over:
                for product_id in self._shelf.sold_out - self._filling:
                    self._filling.add(product_id)
                    work.create_task(self._fill_up(product_id))
                await asyncio.sleep(0.5)
        await self._http.close()

    def finish(self) -> None:
        """Begin nothing more."""
        self._is_over = True

    # With ETags -------------------------------------------------------------------------------------------------

    async def _edit_now_and_then(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self._chance.uniform(0, 1))
            if self._catalog.is_guarded:
                await self._edit(self._chance.choice(self._shelf.contested), self._chance.randint(1000, 5000))

    async def _edit(self, product_id: int, quantity: int) -> None:
        """Add units, more than any batch moves: the service can't take the result for its own."""
        product = await self._read(product_id)
        if product.etag is None:
            return
        fields = product.body["product_detail"]
        marked = {**fields, "quantity": fields["quantity"] + quantity, "edited": uuid4().hex}
        if await self._has_landed(product_id, marked, product.etag):
            self._shelf.edit_count += 1
            self._shelf.put_in[product_id] += quantity

    async def _has_landed(self, product_id: int, fields: dict[str, Any], etag: str) -> bool:
        """Whether this PUT took effect. If its answer does not tell, its mark in the product tells, once it can't land
        any more.
        """
        reply = await self._put(product_id, fields, etag)
        if reply and reply.status == 412:
            return False
        if reply and isinstance(reply.body, dict) and "product_detail" in reply.body:
            return True
        await asyncio.sleep(STRAGGLERS_S)
        found = (await self._read(product_id)).body["product_detail"]
        return bool(found.get("edited") == fields["edited"])

    # Without ----------------------------------------------------------------------------------------------------

    async def _fill_up(self, product_id: int) -> None:
        """Refill a product that was found empty, after some seconds."""
        await asyncio.sleep(self._chance.uniform(0, 8))
        await self._until_done(_HOLD, product_id)
        fields = (await self._read(product_id)).body["product_detail"]
        quantity = self._chance.randint(20, 80)
        full = {**fields, "quantity": fields["quantity"] + quantity}
        while (await self._read(product_id)).body["product_detail"] != full:
            await self._put(product_id, full)
        await asyncio.sleep(STRAGGLERS_S)
        await self._until_done(_RELEASE, product_id)
        self._shelf.put_in[product_id] += quantity
        self._shelf.restock_count += 1
        self._shelf.sold_out.discard(product_id)
        self._filling.discard(product_id)

    async def _until_done(self, statement: str, product_id: int) -> None:
        while not await asyncio.to_thread(self._execute, statement, product_id):
            await asyncio.sleep(0.1)

    def _execute(self, statement: str, product_id: int) -> bool:
        """Run a statement. Returns whether it is done; it is not if the database does not answer."""
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

    # The catalog ------------------------------------------------------------------------------------------------

    async def _read(self, product_id: int) -> Reply:
        """The product, read again and again until there is an answer."""
        while True:
            try:
                reply = await self._http.send("GET", f"{self._catalog.process.url}/products/{product_id}")
            except (NotReached, NoAnswer):
                await asyncio.sleep(0.3)
                continue
            found = reply.body.get("product_detail") if isinstance(reply.body, dict) else None
            if found and found.get("id") == product_id:  # not another product, as calls may be mixed up
                return reply
            await asyncio.sleep(0.3)

    async def _put(self, product_id: int, fields: dict[str, Any], etag: str | None = None) -> Reply | None:
        headers = {"If-Match": etag} if etag else {}
        try:
            url = f"{self._catalog.process.url}/products/{product_id}"
            return await self._http.send("PUT", url, fields, headers=headers)
        except (NotReached, NoAnswer):
            await asyncio.sleep(0.3)
            return None
