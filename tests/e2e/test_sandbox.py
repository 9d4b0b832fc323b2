"""The sandbox's journal: what came, when, and what became of it."""

import itertools
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyreqwest.client import SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError

from tests.conftest import ORDERS, Http, Sandbox, answers, free_port, wait_until

_products = itertools.count(5_000_000)  # far below those that `Sandbox.product` makes


def journal(http: Http, url: str, product: int) -> list[dict[str, Any]]:
    puts: list[dict[str, Any]] = []
    while page := http.get(f"{url}/journal?after={puts[-1]['id'] if puts else 0}").body["puts"]:
        puts += page
    return [put for put in puts if put["product_id"] == product]


def put(http: Http, url: str, product: int, quantity: Any, **headers: str) -> None:
    fields = {"name": "Whispers of the Night", "price": 10, "quantity": quantity}
    http.put(f"{url}/products/{product}", fields, headers=headers)


def put_and_give_up(url: str, product: int, quantity: int) -> None:
    client = SyncClientBuilder().timeout(timedelta(seconds=0.3)).build()
    fields = {"name": "Whispers of the Night", "price": 10, "quantity": quantity}
    with client, pytest.raises(PyreqwestError):
        client.put(f"{url}/products/{product}").body_json(fields).build().send()


@pytest.mark.parametrize("envelope", ["product_detail", "data", "product"])
def test_a_product_comes_and_is_answered_in_an_envelope(sandbox: Sandbox, http: Http, envelope: str) -> None:
    fields = {"id": next(_products), "name": "A Field Guide to Clouds", "price": 24, "quantity": 3}
    url = f"{sandbox.catalog_url}/products"
    reply = http.post(url, {envelope: fields})
    product = reply.body[envelope]
    assert (reply.status, reply.body) == (201, {"products": [product], envelope: product})
    assert sandbox.fields(product["id"]) == product == fields


def test_products_may_come_bare_or_in_a_list_as_well(sandbox: Sandbox, http: Http) -> None:
    def fields() -> dict[str, Any]:
        return {"id": next(_products), "name": "A Field Guide to Clouds", "price": 24, "quantity": 3}

    url = f"{sandbox.catalog_url}/products"
    one = http.post(url, fields()).body
    assert one == {"products": [one["data"]], "data": one["data"]}
    assert sandbox.stock(one["data"]["id"]) == 3
    several = http.post(url, [fields(), {"data": fields()}]).body
    assert list(several) == ["products"]
    assert [product["name"] for product in several["products"]] == ["A Field Guide to Clouds"] * 2
    assert http.post(url, []).body == {"products": []}
    for nonsense in ("x", 7, [7], [fields(), None]):
        assert http.post(url, nonsense).status == 422


def test_the_journal_says_what_became_of_each_put(sandbox: Sandbox, http: Http) -> None:
    product, url = sandbox.product(10), sandbox.catalog_url
    put(http, url, product, 9, **{"User-Agent": "someone"})
    put(http, url, product, -1)
    put(http, url, product, 2**63)
    sandbox.catalog_faults(etags=True)
    put(http, url, product, 8, **{"If-Match": '"1"'})
    sandbox.catalog_faults(etags=False, error_rate=1)
    put(http, url, product, 7)
    sandbox.catalog_faults(error_rate=0, lost_rate=1)
    put_and_give_up(url, product, 6)
    sandbox.catalog_faults(lost_rate=0, late_rate=1, late_s=0.2)
    put(http, url, product, 5)
    wait_until(lambda: sandbox.stock(product) == 5, "the late one has landed")

    puts = journal(http, url, product)
    told = [(p["quantity"], p["before"], p["status"], p["landed_at"] is not None) for p in puts]
    assert told == [
        (9, 10, 200, True),
        (-1, None, 422, False),
        (None, 9, 200, True),  # more than the journal can hold
        (8, None, 412, False),
        (7, None, 500, False),
        (6, None, None, True),  # nobody waited for the answer
        (5, 6, 504, True),
    ]
    assert [p["if_match"] for p in puts] == [None, None, None, '"1"', None, None, None]
    assert puts[0]["user_agent"] == "someone"
    assert all(p["arrived_at"] <= (p["landed_at"] or p["answered_at"]) <= time.time() for p in puts)
    assert puts[-1]["landed_at"] > puts[-1]["answered_at"]


def test_a_page_of_the_journal_begins_after_a_put(sandbox: Sandbox, http: Http) -> None:
    product, url = sandbox.product(10), sandbox.catalog_url
    for quantity in (9, 8):
        put(http, url, product, quantity)
    first, second = journal(http, url, product)
    assert http.get(f"{url}/journal?after={first['id']}").body["puts"] == [second]
    assert http.get(f"{url}/journal?after=x").status == 422


def test_the_journal_survives_a_kill(http: Http, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [*ORDERS, "sandbox", "catalog", "--catalog-port", str(port), "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as catalog, ThreadPoolExecutor(1) as client:
        wait_until(lambda: answers(url), "the catalog answers")
        put(http, url, 7, 48)
        http.put(f"{url}/faults", {"slow_s": 30})
        client.submit(put_and_give_up, url, 7, 47)
        wait_until(lambda: len(journal(http, url, 7)) == 2, "the second PUT has come")
        catalog.kill()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as catalog:
        wait_until(lambda: answers(url), "the catalog answers again")
        done, unfinished = journal(http, url, 7)
        assert (done["quantity"], done["before"], done["status"]) == (48, 49, 200)
        assert (unfinished["quantity"], unfinished["landed_at"], unfinished["answered_at"]) == (47, None, None)
        catalog.kill()
