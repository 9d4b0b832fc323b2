"""Orders of the simpler service: whatever stood in its tables can be read here, found, and moved on."""

import pytest

from tests.conftest import Sandbox, execute
from tests.e2e.conftest import Service, Start
from tests.e2e.test_contract import problem
from tests.e2e.test_exports import body_of, export
from tests.integration.test_migrations import OLD_TABLES

OLD_ORDERS = """
INSERT INTO orders (customer_id, status) VALUES
    (-3, 'Payment pending'), (0, 'ordered'), (7, ''), (7, 'payment_pending'), (%s, 'shipped'), (-3, 'paid');
INSERT INTO order_items (product_id, quantity, order_id) SELECT 7, 2, id FROM orders;
INSERT INTO order_items (product_id, quantity, order_id) VALUES (0, 1, 1), (-5, 1, 1)
"""


@pytest.fixture
def adopting(start: Start, empty_dsn: str) -> Service:
    execute(empty_dsn, OLD_TABLES.replace("INT NOT NULL, status", "BIGINT NOT NULL, status"))
    execute(empty_dsn, OLD_ORDERS, (-(2**63),))
    return start(database_url=empty_dsn)


def numbers(service: Service, path: str) -> list[int]:
    reply = service.get(path)
    assert reply.status == 200, reply
    return [order["number"] for order in reply.body["orders"]]


def test_every_customer_and_every_status_is_reached(
    adopting: Service, empty_dsn: str, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    for address in ("/customers/-3/orders", "/orders?customer_id=-3"):
        assert numbers(adopting, address) == [6, 1]
    assert numbers(adopting, "/customers/0/orders") == numbers(adopting, "/orders?customer_id=0") == [2]
    assert numbers(adopting, f"/customers/{-(2**63)}/orders") == [5]
    assert numbers(adopting, "/customers/-3/orders?status=paid") == [6]
    problem(adopting.get("/customers/-4/orders"), 404, "no_orders_for_customer")
    for no_customer in ("-0", "00", "-03", str(-(2**63) - 1), str(2**63), "+3", "x"):
        problem(adopting.get(f"/customers/{no_customer}/orders"), 404, "not_found")
    for address in ("/orders/-3", "/customers/-3/orders", "/orders/0", "/customers/0/orders"):
        problem(adopting.http.post(f"{adopting.url}{address}"), 404, "not_found")

    for spelling in ("Payment%20pending", "payment_pending", "PAYMENT%20PENDING"):
        assert numbers(adopting, f"/orders?status={spelling}") == [4, 1]
    assert numbers(adopting, "/orders?status=") == [3]
    assert numbers(adopting, "/orders?status=paid&status=&status=payment%20pending&sort=number") == [1, 3, 4, 6]
    told = problem(adopting.get("/orders?status=teleported"), 422, "invalid_request")
    assert told["errors"][0]["pointer"] == "query/status"
    first = adopting.get("/orders?number=1").body["orders"][0]
    assert (first["status"], first["customer_id"]) == ("Payment pending", -3)
    assert [item["product_id"] for item in first["items"]] == [7]  # those of no product were left behind
    assert {o["status"] for o in adopting.get("/reports/statuses").body["statuses"]} == {
        "Payment pending", "payment_pending", "", "Ordered", "Shipped", "Paid",
    }  # fmt: skip
    csv = body_of(adopting, "/orders.csv?status=Payment%20pending").decode().splitlines()
    done = export(empty_dsn, "-f", "csv", "-o", "-", "--filter", "status=payment pending")
    assert done.stdout.decode().splitlines() == csv
    assert len(csv) == 3

    assert adopting.move(first["id"], "Shipped").body["status"] == "Shipped"
    assert adopting.get(f"/orders/{first['id']}?at=1").body == first
    assert "Traceback" not in capfd.readouterr().err
