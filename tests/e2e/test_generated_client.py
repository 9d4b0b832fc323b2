"""A client that openapi-python-client makes of /openapi.json places, finds, changes and previews orders."""

import importlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from orders.principal import Scope
from tests.conftest import Sandbox, execute, wait_until
from tests.e2e.conftest import Service, Start
from tests.e2e.test_keys import key_in
from tests.e2e.test_lists import ORDERS, keep

PACKAGE = "generated_orders_client"
_customers = itertools.count(int(time.time()) + 30_000_000)


class Generated:
    """The generated package, and a client of it for one service. Without a key it asks as a program on this machine."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.models, client = self.module("models"), self.module("client")
        options = {"base_url": url, "raise_on_unexpected_status": True}
        self.connection = client.AuthenticatedClient(token=key, **options) if key else client.Client(**options)

    @staticmethod
    def module(name: str) -> ModuleType:
        return importlib.import_module(f"{PACKAGE}.{name}")

    def call(self, operation: str, *path: Any, **more: Any) -> Any:
        """The answer as the operation's own module parses it: a model of the package."""
        return self.module(f"api.{operation}").sync(*path, client=self.connection, **more)

    def items(self, *lines: tuple[int, int]) -> list[Any]:
        return [self.models.ItemToOrder(product_id=product, quantity=quantity) for product, quantity in lines]

    def to_place(self, *lines: tuple[int, int], **more: Any) -> Any:
        return self.models.OrderToPlace(items=self.items(*lines), **more)

    def metadata(self, **members: Any) -> Any:
        return self.models.Metadata.from_dict(members)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the package is, once it is generated; its name can be imported."""
    folder = tmp_path_factory.mktemp("generated")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder / PACKAGE
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


@pytest.fixture
def client(service: Service, package: Path) -> Iterator[Generated]:
    if not package.exists():
        generate(f"{service.url}/openapi.json", package)
    generated = Generated(service.url)
    with generated.connection:
        yield generated


def generate(url: str, package: Path) -> None:
    config = package.with_suffix(".yml")
    # The hooks would only format it. Lines of JSON are text to the generator, which knows no NDJSON.
    config.write_text("post_hooks: []\ncontent_type_overrides: {application/x-ndjson: text/plain}\n")
    options = ["--meta", "none", "--output-path", str(package), "--config", str(config), "--fail-on-warning"]
    subprocess.run([sys.executable, "-m", "openapi_python_client", "generate", "--url", url, *options], check=True)


def test_its_types_fit(client: Generated, package: Path) -> None:
    options = ["--config-file=", "--ignore-missing-imports", "--cache-dir", str(package.with_suffix(".cache"))]
    subprocess.run([sys.executable, "-m", "mypy", *options, str(package)], check=True)


def test_it_places_items_and_the_cart(client: Generated, sandbox: Sandbox) -> None:
    customer, product = next(_customers), sandbox.product(10)
    sandbox.fill_cart(customer, (product, 2))
    of_cart = client.call("customers.place_customer_order", customer)  # no body: the cart
    assert isinstance(of_cart, client.models.Order)
    assert (of_cart.customer_id, of_cart.items[0].quantity, sandbox.stock(product)) == (customer, 2, 8)

    body = client.to_place((product, 3), metadata=client.metadata(channel="web", gift=True))
    preview = client.call("dry_run.preview_place_customer_order", customer, body=body)
    assert isinstance(preview, client.models.Preview)
    assert (preview.order.id, preview.stock[0].before, preview.stock[0].after) == (None, 8, 5)
    key = f"generated-{customer}"
    placed = client.call("orders.place_order", customer, body=body, idempotency_key=key)
    assert client.call("customers.place_customer_order", customer, body=body, idempotency_key=key) == placed
    assert (placed.metadata["gift"], sandbox.stock(product)) == (True, 5)

    refused = client.call("orders.place_order", customer, body=client.to_place((product, 11)))
    assert isinstance(refused, client.models.Problem)
    assert (refused.code, refused.errors[0].pointer) == ("insufficient_inventory", "#/items/0")


def test_it_finds_orders(client: Generated, sandbox: Sandbox) -> None:
    customer, product = next(_customers), sandbox.product(10)
    orders = [
        client.call(
            "customers.place_customer_order",
            customer,
            body=client.to_place((product, quantity), metadata=client.metadata(channel=channel)),
        )
        for quantity, channel in ((1, "web"), (3, "web"), (2, "shop"))
    ]

    def found(**query: Any) -> Any:
        return client.call("orders.get_orders", customer_id=customer, **query)

    page = found(created_at_gte=orders[0].created_at, status=["Ordered"], limit=2)
    assert page.orders == [orders[2], orders[1]]
    cursor = parse_qs(urlsplit(page.next_).query)["cursor"][0]
    page = found(created_at_gte=orders[0].created_at, status=["Ordered"], limit=2, cursor=cursor)
    assert (page.orders, page.next_) == ([orders[0]], None)
    in_web = found(metadata=["channel=web"], sort=client.models.SortBy.TOTAL_DESCENDING, include_total=True)
    assert (in_web.orders, in_web.total_count) == ([orders[1], orders[0]], 2)
    assert found(total_gt=10, total_lt=30).orders == [orders[2]]
    assert found(created_at_gt=orders[2].created_at, status=["Paid"]).orders == []

    assert client.call("customers.get_customer_orders", customer).orders == orders[::-1]
    assert client.call("orders.get_order", customer).orders == orders[::-1]
    assert client.call("orders.get_order", orders[0].id) == orders[0]
    lines = client.call("exports.export_ndjson", customer_id=customer, metadata=["channel=shop"])
    assert json.loads(lines)["id"] == str(orders[2].id)


def test_it_changes_an_order(client: Generated, sandbox: Sandbox) -> None:
    models, product = client.models, sandbox.product(10)
    body = client.to_place((product, 4), metadata=client.metadata(gift=True))
    order = client.call("customers.place_customer_order", next(_customers), body=body)

    to_first = models.NewStatus(status=order.allowed_statuses[0], note="By telephone.")
    moved = client.call("orders.change_order_status", order.id, body=to_first, if_match='"1"')
    assert (moved.status, moved.version) == ("Confirmed", 2)
    late = client.call("orders.change_order_status", order.id, body=models.NewStatus("Paid"), if_match='"1"')
    assert (late.code, late["version"]) == ("version_changed", 2)

    patch = models.OrderPatch(metadata=client.metadata(gift=None), notes=models.Notes(public="Ring twice."))
    patched = client.call("orders.patch_order", order.id, body=patch)
    assert (patched.metadata.to_dict(), patched.notes.public) == ({}, "Ring twice.")

    part = models.Cancellation(items=[models.UnitsToCancel(order.items[0].id, 1)], reason=models.Reason.CUSTOMER)
    assert client.call("dry_run.preview_cancel_order", order.id, body=part).order.total == 30
    assert client.call("orders.cancel_order", order.id, body=part).total == 30
    client.call("orders.change_order_status", order.id, body=models.NewStatus("Shipped"))
    damaged = models.UnitsToReturn(order.items[0].id, 1, condition=models.Condition.DAMAGED)
    back = client.call("orders.return_order", order.id, body=models.Return(items=[damaged]))
    assert (back.status, back.items[0].returned) == ("Shipped", 1)
    assert client.call("orders.return_order", order.id).status == "Returned"  # no body: all of it
    wait_until(lambda: sandbox.stock(product) == 9, "all but the damaged one is back")

    events = client.call("orders.get_order_events", order.id).events
    types = ["placed", "moved", "described", "cancelled", "moved", "returned", "returned"]
    assert [event.type_ for event in events] == types


def test_it_places_and_moves_many_and_reads_reports(client: Generated, sandbox: Sandbox) -> None:
    models, product, customer = client.models, sandbox.product(10), next(_customers)
    entries = [models.EntryToPlace(customer, items=client.items((product, quantity))) for quantity in (1, 99)]
    shown = client.call("dry_run.preview_place_orders", body=models.OrdersToPlace(entries))
    assert (shown.results[0].order.id, shown.results[1].status) == (None, 400)
    good, bad = client.call("orders.place_orders", body=models.OrdersToPlace(entries)).results
    assert (good.status, good.order.total, bad.problem.code) == (201, 10, "insufficient_inventory")
    entry = models.EntryToMove(good.order.id, "Paid", version=1)
    to_move = models.OrdersToMove([entry], error_policy=models.ErrorPolicy.ALL_OR_NOTHING)
    preview = client.call("dry_run.preview_change_order_statuses", body=to_move)
    assert preview.results[0].events[0].type_ == "moved"
    assert client.call("orders.change_order_statuses", body=to_move).results[0].order.status == "Paid"

    sales = client.call("reports.report_sales", by=models.Period.WEEK)
    top = client.call("reports.report_products", by=models.Measure.REVENUE, limit=1000)
    assert sales.total.orders >= 1
    assert product in [line.product_id for line in top.products]
    assert "Paid" in [line.status for line in client.call("reports.report_statuses").statuses]
    assert client.call("about.get_workflow").initial == "Ordered"
    assert client.call("about.get_problem", "stock_busy").status == 503
    assert client.call("about.get_problems")["stock_busy"].status == 503


def test_it_sends_a_key_and_parses_the_refusals(
    start: Start, package: Path, sandbox: Sandbox, migrated_dsn: str, service: Service
) -> None:
    if not package.exists():
        generate(f"{service.url}/openapi.json", package)
    closed, product = start(orders_access="closed", database_url=migrated_dsn), sandbox.product(10)
    key = key_in(migrated_dsn, Scope.ORDERS_READ, Scope.ORDERS_PLACE)
    shop, stranger, liar = (Generated(closed.url, given) for given in (key, None, f"{key[:-1]}_"))
    with shop.connection, stranger.connection, liar.connection:
        placed = shop.call("customers.place_customer_order", 42, body=shop.to_place((product, 1)))
        assert shop.call("orders.get_order", placed.id) == placed
        refused = shop.call("orders.change_order_status", placed.id, body=shop.models.NewStatus("Paid"))
        assert (refused.code, refused.status, refused["required_scope"]) == ("not_permitted", 403, "orders:change")
        assert stranger.call("orders.get_orders").code == "credential_required"
        assert liar.call("orders.get_orders").code == "credential_invalid"
        assert stranger.call("about.get_problems")["credential_required"].status == 401


def test_it_reads_orders_whose_status_is_an_older_services(client: Generated, dsn: str) -> None:
    keep(dsn, ORDERS[:30])
    statuses = [order.status for order in client.call("orders.get_orders", limit=1000).orders]
    execute(dsn, "TRUNCATE orders CASCADE")
    assert "Lost in the old system" in statuses
