"""A client that openapi-python-client makes of /openapi.json places, finds, moves and cancels an order."""

import importlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import Sandbox, wait_until
from tests.e2e.conftest import Service

PACKAGE = "generated_orders_client"
_customers = itertools.count(int(time.time()) + 30_000_000)


class Generated:
    """The generated package, and a client of it for one service."""

    def __init__(self, url: str) -> None:
        self.models = self.module("models")
        self.connection = self.module("client").Client(base_url=url, raise_on_unexpected_status=True)

    @staticmethod
    def module(name: str) -> ModuleType:
        return importlib.import_module(f"{PACKAGE}.{name}")

    def call(self, operation: str, *path: Any, **more: Any) -> Any:
        """The answer as the operation's own module parses it: a model of the package."""
        return self.module(f"api.{operation}").sync(*path, client=self.connection, **more)

    def to_place(self, *lines: tuple[int, int]) -> Any:
        items = [self.models.ItemToOrder(product_id=product, quantity=quantity) for product, quantity in lines]
        return self.models.OrderToPlace(items=items)


@pytest.fixture
def client(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Generated]:
    config = tmp_path / "config.yml"
    config.write_text("post_hooks: []\n")  # they would only format it
    subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", "--url", f"{service.url}/openapi.json",
         "--meta", "none", "--output-path", str(tmp_path / PACKAGE), "--config", str(config), "--fail-on-warning"],
        check=True,
    )  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    generated = Generated(service.url)
    with generated.connection:
        yield generated
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


def test_a_generated_client_places_finds_moves_and_cancels_an_order(client: Generated, sandbox: Sandbox) -> None:
    customer, product = next(_customers), sandbox.product(10)
    placed = client.call("customers.place_customer_order", str(customer), body=client.to_place((product, 4)))
    assert isinstance(placed, client.models.Order)
    assert (placed.customer_id, placed.items[0].quantity, sandbox.stock(product)) == (customer, 4, 6)

    assert client.call("orders.get_order", str(placed.id)) == placed
    page = client.call("customers.get_customer_orders", str(customer))
    assert page.orders == [placed]

    paid = client.call("orders.change_order_status", str(placed.id), body=new_status(client, "Paid"))
    assert (paid.status, paid.version) == ("Paid", 2)

    cancelled = client.call("orders.cancel_order", str(placed.id), body=client.models.Cancellation(note="Too late."))
    assert (cancelled.status, cancelled.allowed_statuses) == ("Cancelled", [])
    wait_until(lambda: sandbox.stock(product) == 10, "the stock is back")
    events = client.call("orders.get_order_events", str(placed.id)).events
    assert [event.type_ for event in events] == ["placed", "moved", "cancelled"]

    refused = client.call("orders.place_order", str(customer), body=client.to_place((product, 11)))
    assert isinstance(refused, client.models.Problem)
    assert (refused.code, refused.errors[0].pointer) == ("insufficient_inventory", "#/items/0")


def new_status(client: Generated, status: str) -> Any:
    return client.models.NewStatus(status=client.models.NewStatusStatus(status))
