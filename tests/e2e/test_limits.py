"""One principal floods the service; the others do not notice. Keys are made up here: a check reads the principal from
a header.
"""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from orders.app import create_app
from orders.principal import ALL_SCOPES, CustomerMay, Principal, PrincipalKind, Seer
from orders.settings import Settings
from orders.wire.gate import Asked
from tests.conftest import Http, Reply, Sandbox, answers, free_port, wait_until

FLOOD = 80
"""Number of requests at once of the principal that floods: more than the 64 that one may have under way."""

_unknown = itertools.count(10**13)


CHARGES: list[float] = []
"""What the last request of `local` would have been charged."""


class Noted:
    """Limits that nobody goes beyond."""

    def take(self, cost: float) -> None:
        CHARGES.append(cost)

    def charge(self, cost: float) -> None:
        CHARGES.append(cost)


def read_principal(asked: Asked) -> None:
    """The principal that the header names, like `key:shop` or `customer:42`. What `local` is charged is kept."""
    name = asked.headers.get(b"x-principal", b"key:nobody").decode()
    if name == "local":
        asked.scope["state"]["limits"] = Noted()
        return
    kind = PrincipalKind(name.split(":")[0])
    may = frozenset(CustomerMay) if kind is PrincipalKind.CUSTOMER else frozenset[CustomerMay]()
    rate = 1 if name == "key:slow" else None
    asked.scope["state"]["principal"] = Principal(kind, name, name, ALL_SCOPES, Seer(), rate, may)


@dataclass
class Shop:
    """The service in a thread of this process."""

    http: Http
    url: str
    product_id: int

    def ask(self, who: str, method: str, path: str, body: Any = None) -> Reply:
        return self.http.send(method, f"{self.url}{path}", body, {"X-Principal": who})

    def place(self, who: str, customer_id: int = 42) -> Reply:
        return self.ask(
            who, "POST", f"/orders/{customer_id}", {"items": [{"product_id": self.product_id, "quantity": 1}]}
        )


@pytest.fixture
def shop(dsn: str, sandbox: Sandbox, http: Http) -> Iterator[Shop]:
    given = {"database_url": dsn, "catalog_url": sandbox.catalog_url, "cart_url": sandbox.cart_url}
    patient = {"orders_request_deadline_s": 50, "orders_lease_s": 55, "orders_access": "open"}
    app = create_app(Settings(_env_file=None, **given, **patient), [read_principal])  # type: ignore[call-arg]
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: answers(url), "the service listens")
    yield Shop(http, url, sandbox.product(10_000))
    server.should_exit = True
    thread.join()


@dataclass
class Flood:
    """Requests of one principal, sent again and again over many connections until it is stopped."""

    shop: Shop
    send: Callable[[http.client.HTTPConnection], int]
    statuses: Counter[int] = field(default_factory=Counter)
    under_way: int = 0
    is_over: bool = False

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.shop.url.removeprefix("http://"), timeout=60)
        while not self.is_over:
            self.under_way += 1
            status = self.send(connection)
            self.under_way -= 1
            self.statuses[status] += 1
            if status == 429:
                time.sleep(0.1)  # a client that asks again at once takes this process's CPU from the others
        connection.close()


@contextlib.contextmanager
def flooded(shop: Shop, send: Callable[[http.client.HTTPConnection], int]) -> Iterator[Flood]:
    flood = Flood(shop, send)
    with concurrent.futures.ThreadPoolExecutor(FLOOD) as threads:
        runs = [threads.submit(flood.run) for _ in range(FLOOD)]
        try:
            wait_until(lambda: flood.statuses[429], "the flood is at its limit")
            yield flood
        finally:
            flood.is_over = True
    for run in runs:
        run.result()


def request(who: str, method: str, path: str, body: Callable[[], Any] = lambda: None) -> Callable[..., int]:
    def send(connection: http.client.HTTPConnection) -> int:
        content = body()
        headers = {"X-Principal": who, "Content-Type": "application/json"}
        connection.request(method, path, None if content is None else json.dumps(content), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    return send


def unknown(line_count: int) -> Any:
    """An order of products that nobody has: each has to be asked for."""
    return {"items": [{"product_id": next(_unknown), "quantity": 1} for _ in range(line_count)]}


FLOODS = {
    "large orders": ("POST", "/orders/42", lambda: unknown(50)),
    "huge orders": ("POST", "/orders/42", lambda: unknown(400)),
    "small orders": ("POST", "/orders/42", lambda: unknown(1)),
    "dry runs of large orders": ("POST", "/dry-run/orders/42", lambda: unknown(10)),
    "exports": ("GET", "/orders.csv", lambda: None),
    "reports": ("GET", "/reports/statuses", lambda: None),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_one_principal_takes_nothing_from_another(shop: Shop, sandbox: Sandbox, kind: str) -> None:
    for _ in range(5):
        assert shop.place("key:web").status == 201
    sandbox.catalog_faults(slow_s=0.02)
    with flooded(shop, request("key:flood", *FLOODS[kind])) as flood:
        for n in range(5):
            placed = shop.place("key:web")
            assert placed.status == 201, placed
            assert shop.ask("key:web", "GET", f"/orders/{placed.body['id']}").status == 200
            assert shop.ask("customer:42", "GET", "/orders/42?limit=1").status == 200
            assert flood.under_way > 0, n
    assert flood.statuses[429] > 0
    assert set(flood.statuses) <= {200, 400, 429, 503}, flood.statuses
    assert flood.statuses.keys() - {429, 503}, "nothing of the flood was answered"


def test_a_limit_is_told_in_the_headers_and_a_refusal_names_it(shop: Shop) -> None:
    seen = [shop.ask("key:slow", "GET", "/orders") for _ in range(50)]
    assert seen[0].headers["ratelimit-policy"] == '"default";q=3;w=3, "in-flight";q=64;qu="concurrent-requests"'
    assert seen[0].headers["ratelimit"] == '"default";r=2;t=1'
    refused = next(reply for reply in seen if reply.status == 429)
    assert refused.body["code"] == "rate_limited"
    assert refused.body["violated_policies"] == ["default"]
    assert int(refused.headers["retry-after"]) >= 1
    assert shop.ask("key:web", "GET", "/orders").status == 200


def test_a_large_order_of_a_customer_costs_more_and_all_others_go_on(shop: Shop) -> None:
    first = shop.ask("customer:7", "POST", "/orders/7", unknown(500))
    assert first.status == 400
    assert int(first.headers["ratelimit"].split(";")[1].removeprefix("r=")) == 0
    assert shop.place("customer:8", 8).status == 201


def test_what_is_known_only_later_is_charged(shop: Shop) -> None:
    def charged(method: str, path: str, body: Any = None) -> float:
        CHARGES.clear()
        reply = shop.ask("local", method, path, body)
        assert reply.status in (200, 201), reply
        return round(sum(CHARGES), 2)

    entry = {"customer_id": 42, "items": [{"product_id": shop.product_id, "quantity": 1}]}
    assert charged("POST", "/orders/42", {"items": entry["items"]}) == 0.1
    placed = shop.ask("local", "POST", "/orders:batch", {"orders": [entry] * 100}).body["results"]
    moves = {"orders": [{"id": result["order"]["id"], "status": "Paid"} for result in placed]}
    assert charged("PUT", "/dry-run/orders:batch", moves) == 20
    assert charged("PUT", "/orders:batch", moves) == 20
    assert charged("POST", "/dry-run/orders:batch", {"orders": [entry] * 100}) == 30
    assert charged("GET", f"/orders/{placed[0]['order']['id']}") == 0
    assert charged("GET", f"/orders/{placed[0]['order']['id']}/events") == 0.04
    assert charged("GET", "/orders?limit=50") == 1
    assert charged("GET", "/orders/42?limit=25&include_total=true") == 10.5
    assert charged("GET", "/orders.csv") == 2.02
