"""Two shops, each with a service and a database, in one PostgreSQL behind one pooler: nothing crosses (ADR 25)."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from orders.postgres.database import opened
from orders.principal import ALL_SCOPES
from tests.conftest import Http, Sandbox, execute, migrated, prove
from tests.e2e.conftest import Service, listening, start_service, stop, usual
from tests.e2e.test_keys import bearer, key_in


@dataclass
class Shop:
    """A service, its database, and a key."""

    service: Service
    dsn: str
    key: dict[str, str]


@pytest.fixture
def shops(pooled_server: str, http: Http, sandbox: Sandbox) -> Iterator[list[Shop]]:
    """Both shops of this test have one sandbox, but see nothing of each other: their databases are two."""
    found = []
    for name in ("orders_shop_a", "orders_shop_b"):
        dsn = migrated(pooled_server, name)
        with opened(dsn) as connection:
            prove(connection, catalog=sandbox.catalog_url, cart=sandbox.cart_url)
        service = start_service(http, **usual(dsn, sandbox), orders_access="closed")
        found.append(Shop(listening(service), dsn, bearer(key_in(dsn, *ALL_SCOPES))))
    yield found
    stop([shop.service for shop in found])


def test_nothing_crosses_between_two_shops(shops: list[Shop], sandbox: Sandbox) -> None:
    here, there = shops
    products = [sandbox.product(1000), sandbox.product(1000)]  # each shop sells its own
    placed: list[list[str]] = [[], []]
    for n in range(20):  # in turns, so that both use the pooler's connections
        for which, shop in enumerate(shops):
            headers = {**shop.key, "Idempotency-Key": f"same-{n}"}
            reply = shop.service.place(42, (products[which], 1), headers=headers)
            assert reply.status == 201, reply
            placed[which].append(reply.body["id"])
    for which, shop in enumerate(shops):
        orders = shop.service.get("/orders?limit=1000", headers=shop.key).body["orders"]
        assert {order["id"] for order in orders} == set(placed[which])
        assert {item["product_id"] for order in orders for item in order["items"]} == {products[which]}
        foreign = placed[1 - which][0]
        assert shop.service.get(f"/orders/{foreign}", headers=shop.key).status == 404
        assert execute(shop.dsn, "SELECT count(*) FROM access_keys") == [(1,)]
    for shop, other in ((here, there), (there, here)):
        assert shop.service.get("/orders", headers=other.key).status == 401
    assert [sandbox.stock(product) for product in products] == [980, 980]
