"""`/dry-run/…`: every write has an operation that tells what it would do, and is the write with `dry_run=true`."""

from typing import Any

from tests.conftest import Sandbox
from tests.e2e.conftest import Service
from tests.e2e.test_bulk import wish
from tests.e2e.test_contract import NOWHERE, problem
from tests.e2e.test_dry_run import DRY, foreseeable, nothing_happens
from tests.e2e.test_life import placed

CUSTOMER = 40_000_001


def writes(order: dict[str, Any], product: int) -> list[tuple[str, str, Any]]:
    items = {"items": [{"product_id": product, "quantity": 2}], "metadata": {"channel": "web"}}
    a_unit = {"items": [{"id": order["items"][0]["id"], "quantity": 1}]}
    return [
        ("POST", f"/orders/{CUSTOMER}", items),
        ("POST", f"/customers/{CUSTOMER}/orders", items),
        ("PUT", f"/orders/{order['id']}", {"status": "Shipped"}),
        ("PATCH", f"/orders/{order['id']}", {"metadata": {"channel": "shop"}}),
        ("POST", f"/orders/{order['id']}/cancel", a_unit),
        ("POST", f"/orders/{order['id']}/return", a_unit),  # refused: it was not shipped
        ("POST", "/orders:batch", {"orders": [wish((product, 1)), wish((product, 99))]}),
        ("PUT", "/orders:batch", {"orders": [{"id": order["id"], "status": "Paid"}]}),
    ]


def test_the_preview_of_every_write_is_what_dry_run_tells(service: Service, sandbox: Sandbox, dsn: str) -> None:
    product = sandbox.product(10)
    order = placed(service, (product, 3))
    with nothing_happens(service, sandbox, dsn):
        for method, path, body in writes(order, product):
            shown = service.http.send(method, f"{service.url}/dry-run{path}", body)
            told = service.http.send(method, f"{service.url}{path}{DRY}", body)
            assert shown.status == told.status == (409 if path.endswith("/return") else 200), shown
            assert foreseeable(without_address(shown.body)) == foreseeable(without_address(told.body))


def without_address(body: Any) -> Any:
    """A problem names the address that was asked."""
    if isinstance(body, dict):
        return {name: without_address(value) for name, value in body.items() if name != "instance"}
    return [without_address(value) for value in body] if isinstance(body, list) else body


def test_every_write_in_the_document_has_a_preview(service: Service, sandbox: Sandbox) -> None:
    paths = service.get("/openapi.json").body["paths"]
    changes = {(method, path) for path, item in paths.items() for method in ("post", "put", "patch") if method in item}
    written = {(method, path) for method, path in changes if not path.startswith("/keys")}  # they are no orders
    previews = {(method, path) for method, path in written if path.startswith("/dry-run/")}
    assert {(method, f"/dry-run{path}") for method, path in written - previews} == previews


def test_a_preview_has_no_parameters_but_the_headers_of_its_write(service: Service, sandbox: Sandbox, dsn: str) -> None:
    order = placed(service, (sandbox.product(10), 3))
    moved = f"{service.url}/dry-run/orders/{order['id']}"
    with nothing_happens(service, sandbox, dsn):
        for query in ("dry_run=false", "dry_run=true", "colour=blue"):
            reply = service.http.put(f"{moved}?{query}", {"status": "Paid"})
            assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == f"query/{query.split('=')[0]}"
        problem(service.http.put(moved, {"status": "Paid"}, headers={"If-Match": '"7"'}), 412, "version_changed")
        events = service.http.put(moved, {"status": "Paid"}, headers={"X-Actor": "anna"}).body["events"]
        assert [event["actor"] for event in events] == ["local/anna"]
        problem(service.http.put(f"{service.url}/dry-run/orders/{NOWHERE}", {"status": "Paid"}), 404, "order_not_found")
        problem(service.http.post(f"{service.url}/dry-run/orders/none"), 404, "not_found")
        problem(service.get(f"/dry-run/orders/{order['id']}"), 405, "method_not_allowed")
