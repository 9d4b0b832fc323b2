"""A catalog that passed its proof by luck and mixes up only PUTs: no stock is wrong, and it gets one call at a time."""

import asyncio
import json
from typing import Any

import pytest

from orders.neighbours.catalog import Catalog
from orders.neighbours.concurrency import Learnt
from orders.neighbours.neighbour import Neighbour
from orders.neighbours.reply import Reply
from orders.stock import write as stock
from orders.stock.plan import Adjustment
from orders.stock.write import Fate, write_stock

PRODUCTS = range(1, 9)


class Simulated(Neighbour):
    """A catalog in memory. It answers PUTs that overlap with `mixed_up`; they are done only if `does` says so."""

    def __init__(self, mixed_up: tuple[int, bytes], alone: bytes = b"{}", *, does: bool = False) -> None:
        super().__init__("It", "http://catalog", None, breaker_failures=8, breaker_rest_s=1)  # type: ignore[arg-type]
        self.capacity.adopt(Learnt(64, is_proven=True))
        self.stock = dict.fromkeys(PRODUCTS, 9)
        self._mixed_up, self._alone, self._does = mixed_up, alone, does
        self._puts = 0  # under way

    async def _exchange(self, method: str, path: str, body: bytes, *_: object) -> Reply:
        product_id = int(path.rsplit("/", 1)[1])
        if method == "GET":
            found = {"id": product_id, "name": "Whispers", "price": 10, "quantity": self.stock[product_id]}
            return Reply(200, json.dumps(found).encode(), None)
        return await self._put(product_id, json.loads(body)["quantity"])

    async def _put(self, product_id: int, quantity: int) -> Reply:
        self._puts += 1
        await asyncio.sleep(0)  # the others begin
        overlapped = self._puts > 1
        await asyncio.sleep(0)  # all have seen that before the first one ends
        self._puts -= 1
        if self._does or not overlapped:
            self.stock[product_id] = quantity
        return Reply(*(self._mixed_up if overlapped else (200, self._alone)), etag=None)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "jittered", lambda pause_s: 0)


async def take_one_of_each(neighbour: Simulated) -> list[Fate]:
    catalog = Catalog(neighbour)

    async def take(product_id: int) -> Fate:
        product: Any = await catalog.read(product_id)
        return await write_stock(catalog, product, Adjustment(9, 8), asyncio.get_running_loop().time() + 5)

    return await asyncio.gather(*map(take, PRODUCTS))


@pytest.mark.parametrize("mixed_up", [(404, b"{}"), (200, b'"not found"'), (200, b'{"id": 99, "quantity": 1}')])
async def test_a_put_that_is_not_found_in_company_and_done_alone_tells_on_the_catalog(
    mixed_up: tuple[int, bytes],
) -> None:
    fragile = Simulated(mixed_up)
    assert await take_one_of_each(fragile) == [Fate.LANDED] * len(PRODUCTS)
    assert set(fragile.stock.values()) == {8}
    assert fragile.capacity.learnt().is_fragile
    assert fragile.capacity.learnt().wrong_count == 1  # all of them were under way together


async def test_one_that_acknowledges_with_a_text_is_not_suspected() -> None:
    wordy = Simulated((200, b'"updated"'), alone=b'"updated"', does=True)
    assert await take_one_of_each(wordy) == [Fate.LANDED] * len(PRODUCTS)
    assert wordy.capacity.is_proven


async def test_one_that_refuses_what_overlaps_because_it_is_busy_is_not_suspected() -> None:
    busy = Simulated((409, b"{}"))
    assert await take_one_of_each(busy) == [Fate.LANDED] * len(PRODUCTS)
    assert busy.capacity.is_proven
