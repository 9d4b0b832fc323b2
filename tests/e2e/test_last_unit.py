"""The last unit: far more buyers than there is stock, all at once, at several replicas."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyreqwest.client import Client, ClientBuilder

from tests.conftest import Sandbox, execute
from tests.e2e.conftest import Start

UNITS, BUYERS, REPLICAS = 50, 2000, 4

PATIENT = {"orders_request_deadline_s": 120, "orders_lease_s": 150}
"""On a busy machine it takes a while; nobody is to be refused for that."""


@dataclass(frozen=True)
class Told:
    """What a buyer was told."""

    status: int
    body: dict[str, Any]


async def buy(client: Client, url: str, customer: int, product: int, all_are_here: asyncio.Barrier) -> Told:
    items = {"items": [{"product_id": product, "quantity": 1}]}
    request = client.post(f"{url}/orders/{customer}").body_json(items).build()
    await all_are_here.wait()
    response = await request.send()
    return Told(response.status, await response.json())


async def test_of_2000_buyers_at_once_50_get_the_50_units(start: Start, sandbox: Sandbox, dsn: str) -> None:
    product = sandbox.product(UNITS)
    urls = [start(**PATIENT).url for _ in range(REPLICAS)]
    barrier = asyncio.Barrier(BUYERS)
    async with ClientBuilder().timeout(timedelta(seconds=180)).build() as client:
        buying = (buy(client, urls[n % REPLICAS], 1 + n, product, barrier) for n in range(BUYERS))
        told = await asyncio.gather(*buying)

    refusals = Counter((answer.status, answer.body.get("code")) for answer in told if answer.status != 201)
    assert refusals == {(400, "insufficient_inventory"): BUYERS - UNITS}
    orders = {answer.body["id"] for answer in told if answer.status == 201}
    assert len(orders) == UNITS
    assert {row[0] for row in execute(dsn, "SELECT id::text FROM orders WHERE placed_at IS NOT NULL")} == orders
    assert sandbox.stock(product) == 0
    errors = [error for answer in told for error in answer.body.get("errors", [])]
    assert all((e["product_id"], e["requested"]) == (product, 1) and e["available"] == 0 for e in errors)
