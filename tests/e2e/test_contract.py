"""Every answer that the contract promises, over HTTP."""

import dataclasses
import itertools
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import ORDERS, Reply, Sandbox, answers, execute, free_port, wait_until
from tests.e2e.conftest import Service, Start

_customers = itertools.count(int(time.time()))
NOWHERE = "019ab1e2-7c3d-7a41-9b52-0d6c3f1e8a77"


@pytest.fixture
def customer() -> int:
    return next(_customers)


def problem(reply: Reply, status: int, code: str) -> dict[str, Any]:
    assert (reply.status, reply.body.get("code")) == (status, code), reply
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.body["type"] == f"/problems/{code}"
    assert {"title", "detail", "instance"} <= reply.body.keys()
    return dict(reply.body)


def test_an_order_from_explicit_items(service: Service, sandbox: Sandbox, customer: int) -> None:
    a, b = sandbox.product(10, price=25, colour="blue", ratio=1.5), sandbox.product(5, price=7)
    reply = service.place(customer, (b, 1), (a, 2), (b, 2))
    order = reply.body
    assert reply.status == 201
    assert reply.headers["location"] == f"/orders/{order['id']}"
    assert UUID(order["id"]).version == 7
    assert (order["status"], order["total"], order["currency"], order["version"]) == ("Ordered", 71, "USD", 1)
    assert [(i["product_id"], i["quantity"], i["unit_price"], i["total"]) for i in order["items"]] == [
        (a, 2, 25, 50),
        (b, 3, 7, 21),
    ]
    assert sandbox.fields(a) == {
        "id": a, "name": "Whispers of the Night", "price": 25, "quantity": 8, "colour": "blue", "ratio": 1.5,
    }  # fmt: skip
    assert sandbox.stock(b) == 2
    assert service.get(f"/orders/{order['id']}").body == order
    assert service.get(f"/orders/{customer}").body == {"orders": [order], "next": None}
    assert service.get(f"/customers/{customer}/orders").body == {"orders": [order], "next": None}


@pytest.mark.parametrize("body", [None, {}, {"items": None}])
def test_an_order_from_the_cart_closes_it_and_a_second_click_gets_the_same_order(
    service: Service, sandbox: Sandbox, customer: int, body: Any
) -> None:
    product = sandbox.product(10)
    cart = sandbox.fill_cart(customer, (product, 1), (product, 3))
    url = f"{service.url}/orders/{customer}"
    first, second = service.http.post(url, body), service.http.post(url, body)
    assert (first.status, second.status) == (201, 201)
    assert first.body == second.body
    assert second.headers["idempotent-replayed"] == "true"
    assert (sandbox.stock(product), sandbox.cart_status(cart)) == (6, "Ordered")


def test_a_cart_whose_items_are_among_those_of_all_carts(start: Start, sandbox: Sandbox, customer: int) -> None:
    port = free_port()
    carts = subprocess.Popen([*ORDERS, "sandbox", "carts", "--no-inline-items", "--cart-port", str(port)])
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}"), "the carts answer")
        elsewhere = dataclasses.replace(sandbox, cart_url=f"http://127.0.0.1:{port}")
        product = sandbox.product(10)
        elsewhere.fill_cart(next(_customers), (product, 5))
        cart = elsewhere.fill_cart(customer, (product, 2))
        order = start(cart_url=elsewhere.cart_url).place(customer).body
        assert [(item["product_id"], item["quantity"]) for item in order["items"]] == [(product, 2)]
        assert (sandbox.stock(product), elsewhere.cart_status(cart)) == (8, "Ordered")
    finally:
        carts.kill()
        carts.wait()


def test_one_cart_from_two_replicas_at_once_is_one_order(
    services: list[Service], sandbox: Sandbox, customer: int
) -> None:
    product = sandbox.product(100)
    sandbox.fill_cart(customer, (product, 2))
    with ThreadPoolExecutor(8) as clicks:
        replies = list(clicks.map(lambda n: services[n % 2].place(customer), range(8)))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.body["id"] for reply in replies}) == 1
    assert sandbox.stock(product) == 98


def test_explicit_items_that_cover_the_cart_close_it(service: Service, sandbox: Sandbox, customer: int) -> None:
    product, other = sandbox.product(10), sandbox.product(10)
    cart = sandbox.fill_cart(customer, (product, 2))
    assert service.place(customer, (product, 2), (other, 1)).status == 201
    wait_until(lambda: sandbox.cart_status(cart) == "Ordered", "the cart is closed")


def test_explicit_items_that_do_not_cover_the_cart_leave_it(
    service: Service, sandbox: Sandbox, customer: int, dsn: str
) -> None:
    product = sandbox.product(10)
    cart = sandbox.fill_cart(customer, (product, 2))
    assert service.place(customer, (product, 1)).status == 201
    wait_until(lambda: not execute(dsn, "SELECT 1 FROM cart_closings"), "the cart was looked at")
    assert sandbox.cart_status(cart) == "Active"


def test_without_a_cart_or_with_an_empty_one(service: Service, sandbox: Sandbox, customer: int) -> None:
    problem(service.place(customer), 404, "cart_not_found")
    sandbox.fill_cart(customer)
    problem(service.place(customer), 400, "cart_empty")


def test_what_is_not_there_is_404(service: Service, customer: int) -> None:
    problem(service.get(f"/orders/{NOWHERE}"), 404, "order_not_found")
    problem(service.get(f"/orders/{customer}"), 404, "no_orders_for_customer")
    problem(service.get(f"/customers/{customer}/orders"), 404, "no_orders_for_customer")
    problem(service.get("/orders/0"), 404, "not_found")
    problem(service.get("/orders/x"), 404, "not_found")
    problem(service.http.post(f"{service.url}/orders/{NOWHERE}"), 404, "not_found")
    problem(service.move(NOWHERE, "Paid"), 404, "order_not_found")
    problem(service.move("42", "Paid"), 404, "order_not_found")
    problem(service.get("/nowhere"), 404, "not_found")
    reply = service.http.send("DELETE", f"{service.url}/orders/42")
    problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS, PATCH, POST, PUT"


def test_head_is_answered_as_get_without_the_body(service: Service, customer: int) -> None:
    for path, status in [("/health", 200), ("/orders", 200), (f"/orders/{customer}", 404)]:
        head, get = (service.http.send(method, f"{service.url}{path}") for method in ("HEAD", "GET"))
        assert (head.status, get.status) == (status, status)
        assert head.headers["content-length"] == get.headers["content-length"]
        assert head.headers["content-type"] == get.headers["content-type"]


def test_too_little_is_400_and_names_every_short_line(service: Service, sandbox: Sandbox, customer: int) -> None:
    enough, little, unknown = sandbox.product(9), sandbox.product(1), 2**62
    body = problem(service.place(customer, (enough, 1), (little, 2), (unknown, 3)), 400, "insufficient_inventory")
    assert [(e["pointer"], e["code"], e["product_id"], e["requested"], e["available"]) for e in body["errors"]] == [
        ("#/items/1", "insufficient_inventory", little, 2, 1),
        ("#/items/2", "unknown_product", unknown, 3, 0),
    ]
    assert body["errors"][1]["message"] == f"The catalog has no product {unknown}."
    assert (sandbox.stock(enough), sandbox.stock(little)) == (9, 1)
    problem(service.get(f"/orders/{customer}"), 404, "no_orders_for_customer")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"items": []}, "#/items"),
        ({"items": [{"product_id": 7}]}, "#/items/0/quantity"),
        ({"items": [{"product_id": 7, "quantity": 0}]}, "#/items/0/quantity"),
        ({"items": [{"product_id": 7, "quantity": "2"}]}, "#/items/0/quantity"),
        ({"items": [{"product_id": 7, "quantity": True}]}, "#/items/0/quantity"),
        ({"items": [{"product_id": 7, "quantity": 2**31}]}, "#/items/0/quantity"),
        ({"items": [{"product_id": 2**63, "quantity": 1}]}, "#/items/0/product_id"),
        ({"items": [{"product_id": 7, "quantity": 1, "price": 1}]}, "#/items/0/price"),
        ({"items": {}}, "#/items"),
        ({"item": []}, "#/item"),
        ([], "#"),
    ],
)
def test_a_malformed_order_is_422_and_says_where(service_for_reading: Service, body: Any, pointer: str) -> None:
    reply = service_for_reading.http.post(f"{service_for_reading.url}/orders/42", body)
    assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/orders?limit=0", "query/limit"),
        ("/orders?limit=1001", "query/limit"),
        ("/orders?limit=x", "query/limit"),
        ("/orders?cursor=x", "query/cursor"),
        ("/orders?status=teleported", "query/status"),
        ("/orders?colour=blue", "query/colour"),
        ("/orders/42?cursor=%00", "query/cursor"),
        (f"/orders/{NOWHERE}?cursor=x", "query/cursor"),
        (f"/orders/{NOWHERE}?status=teleported", "query/status"),
        (f"/orders/{NOWHERE}?limit=2", "query/limit"),
        (f"/orders/{NOWHERE}?metadata[channel]=web", "query/metadata[channel]"),
        (f"/orders/{NOWHERE}?total[gte]=2&at=1", "query/total[gte]"),
        (f"/orders/{NOWHERE}?total_gte=2", "query/total_gte"),
        (f"/orders/{NOWHERE}?metadata=channel=web", "query/metadata"),
        (f"/orders/{NOWHERE}?colour=blue&limit=2", "query/colour"),
        ("/orders?limit=1&limit=2", "query/limit"),
        ("/orders?total[gte]=1&total[gte]=2", "query/total[gte]"),
        (f"/orders/{NOWHERE}?at=1&at=2", "query/at"),
        ("/orders.csv?number=1&number=2", "query/number"),
        ("/reports/sales?from=2026-11-01&from=2026-11-02", "query/from"),
        ("/?x=1", "query/x"),
        ("/workflow?x=1", "query/x"),
        ("/problems?x=1", "query/x"),
        ("/problems/not_found?x=1", "query/x"),
        ("/reports/statuses?x=1", "query/x"),
    ],
)
def test_a_malformed_query_is_422_and_says_where(service_for_reading: Service, path: str, pointer: str) -> None:
    assert problem(service_for_reading.get(path), 422, "invalid_request")["errors"][0]["pointer"] == pointer


def test_a_lists_defaults_are_let_through_beside_an_order(service: Service, sandbox: Sandbox, customer: int) -> None:
    order = service.place(customer, (sandbox.product(5), 1)).body
    reply = service.get(f"/orders/{order['id']}?sort=-created_at&limit=100&include_total=false")  # as clients send it
    assert reply.body == order


def test_what_is_wrong_is_said_in_plain_words(service_for_reading: Service) -> None:
    http, url = service_for_reading.http, service_for_reading.url

    def messages(reply: Reply) -> list[str]:
        return [error["message"] for error in problem(reply, 422, "invalid_request")["errors"]]

    assert messages(service_for_reading.get("/orders?colour=blue")) == ["There is no parameter 'colour'."]
    assert messages(service_for_reading.get("/reports/sales?colour=blue")) == ["There is no parameter 'colour'."]
    assert messages(http.put(f"{url}/orders/{NOWHERE}?colour=blue", {"status": "Paid"})) == [
        "There is no parameter 'colour'."
    ]
    assert messages(http.put(f"{url}/orders/{NOWHERE}", {"status": "Paid", "colour": 1})) == [
        "There is no member 'colour'."
    ]
    assert messages(http.put(f"{url}/orders/{NOWHERE}", {})) == ["status is needed; it is missing."]
    assert messages(http.send("PUT", f"{url}/orders/{NOWHERE}")) == ["A body is needed; there is none."]
    for value in ("maybe", "1"):
        reply = http.put(f"{url}/orders/{NOWHERE}?dry_run={value}", {"status": "Paid"})
        assert messages(reply) == ["dry_run: true or false, once."]


def test_a_parameter_that_nobody_knows_is_422(service: Service, sandbox: Sandbox, customer: int) -> None:
    product = sandbox.product(5)
    body = {"items": [{"product_id": product, "quantity": 1}]}
    for path in (f"/orders/{customer}", f"/customers/{customer}/orders"):
        reply = service.http.post(f"{service.url}{path}?dryrun=true", body)
        assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == "query/dryrun"
    assert sandbox.stock(product) == 5
    order = service.http.post(f"{service.url}/orders/{customer}", body).body
    reply = service.http.put(f"{service.url}/orders/{order['id']}?notify", {"status": "Paid"})
    assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == "query/notify"
    assert service.get(f"/orders/{order['id']}").body == order


def test_bodies_that_are_no_json_or_too_large(service: Service) -> None:
    headers = {"content-type": "application/json"}

    def post(body: bytes) -> Reply:
        response = (
            service.http._client.post(f"{service.url}/orders/42").headers(headers).body_bytes(body).build().send()
        )
        return Reply(response.status, response.json(), {"content-type": response.get_header("content-type") or ""})

    assert problem(post(b'{"items": '), 422, "invalid_request")["errors"][0]["pointer"] == "#"
    for unreadable in (
        b'{"items": ' + b"[" * 100_000,
        b"\xff\xfe",
        b'{"items": [{"product_id": ' + b"9" * 6000 + b"}]}",
    ):
        assert problem(post(unreadable), 422, "invalid_request")["errors"][0]["pointer"].startswith("#")
    assert post(b'{"items": [{"product_id": NaN}]}').status == 422
    headers["content-type"] = "application/x-www-form-urlencoded"
    body = problem(post(b'{"items": [{"product_id": 7, "quantity": 1}]}'), 422, "invalid_request")
    assert body["errors"][0]["pointer"] == "header/Content-Type"
    assert "application/x-www-form-urlencoded" in body["detail"]
    problem(post(b" " * (1024 * 1024 + 1)), 413, "body_too_large")


@pytest.fixture
def service_for_reading(service: Service) -> Service:
    return service


def test_the_same_key_repeats_the_first_outcome(service: Service, sandbox: Sandbox, customer: int) -> None:
    product, key = sandbox.product(10), {"Idempotency-Key": f'"k {customer}"'.replace(" ", "-")}
    first = service.place(customer, (product, 4), headers=key)
    second = service.place(customer, (product, 1), (product, 3), headers={"Idempotency-Key": f"k-{customer}"})
    assert (first.status, second.status, second.body) == (201, 201, first.body)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert sandbox.stock(product) == 6
    problem(service.place(customer, (product, 5), headers=key), 422, "key_reused")
    problem(service.place(customer + 1, (product, 4), headers=key), 422, "key_reused")
    problem(service.place(customer, headers=key), 422, "key_reused")
    problem(service.place(customer, (product, 1), headers={"Idempotency-Key": "a b"}), 422, "invalid_request")


def test_a_refusal_is_repeated_too(service: Service, sandbox: Sandbox, customer: int) -> None:
    product, key = sandbox.product(1), {"Idempotency-Key": f"r-{customer}"}
    first = service.place(customer, (product, 2), headers=key)
    sandbox.restock(product, 10)
    second = service.place(customer, (product, 2), headers=key)
    assert (first.status, second.status, second.body) == (400, 400, first.body)
    assert second.headers["idempotent-replayed"] == "true"


def test_a_key_that_is_still_running_is_409_here_and_on_another_replica(
    services: list[Service], sandbox: Sandbox, customer: int, dsn: str
) -> None:
    product, key = sandbox.product(10), {"Idempotency-Key": f"s-{customer}"}
    sandbox.catalog_faults(slow_s=0.8)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(services[0].place, customer, (product, 1), headers=key)
        wait_until(lambda: execute(dsn, "SELECT 1 FROM idempotency_keys"), "the key is in use")
        for replica in services:
            reply = replica.place(customer, (product, 1), headers=key)
            problem(reply, 409, "key_in_use")
            assert reply.headers["retry-after"] == "1"
        assert first.result().status == 201
    assert sandbox.stock(product) == 9


def test_a_catalog_that_is_down_is_500_then_it_is_given_a_rest(start: Start, sandbox: Sandbox, customer: int) -> None:
    service = start(catalog_url="http://127.0.0.1:9", orders_breaker_failures=4)
    problem(service.place(customer, (7, 1)), 500, "catalog_unavailable")
    replies = [service.place(customer, (7, 1)) for _ in range(3)]
    body = problem(replies[-1], 503, "neighbour_resting")
    assert "Product Catalog" in body["detail"]
    assert replies[-1].headers["retry-after"]
    problem(service.get(f"/orders/{customer}"), 404, "no_orders_for_customer")


def test_a_cart_service_that_is_down_is_500_for_carts_and_no_matter_for_items(
    start: Start, sandbox: Sandbox, customer: int
) -> None:
    service = start(cart_url="http://127.0.0.1:9")
    problem(service.place(customer), 500, "cart_unavailable")
    assert service.place(customer, (sandbox.product(5), 1)).status == 201


def test_rubbish_from_the_catalog_places_nothing(service: Service, sandbox: Sandbox, customer: int) -> None:
    product = sandbox.product(5)
    sandbox.catalog_faults(rubbish_rate=1)
    assert service.place(customer, (product, 1)).body["code"] in ("catalog_reply_invalid", "catalog_unavailable")
    sandbox.heal()
    assert sandbox.stock(product) == 5


def test_a_cart_that_could_not_be_closed_is_closed_later(
    service: Service, sandbox: Sandbox, customer: int, dsn: str
) -> None:
    product = sandbox.product(5)
    cart = sandbox.fill_cart(customer, (product, 1))
    sandbox.cart_faults(late_rate=1, late_s=60)  # each PUT is answered 504, and lands when the test is over
    assert service.place(customer).status == 201
    assert sandbox.cart_status(cart) == "Active"
    sandbox.heal()
    execute(dsn, "UPDATE cart_closings SET retry_at = now()")
    wait_until(lambda: sandbox.cart_status(cart) == "Ordered", "the cart is closed")
    wait_until(lambda: not execute(dsn, "SELECT 1 FROM cart_closings"), "nothing is left to do")


def test_moving_an_order(service: Service, sandbox: Sandbox, customer: int) -> None:
    product = sandbox.product(5)
    order = service.place(customer, (product, 2)).body
    paid = service.move(order["id"], "pAiD")
    assert (paid.status, paid.body["status"], paid.body["version"]) == (200, "Paid", 2)
    assert service.move(order["id"], "Paid").body == paid.body
    assert service.move(order["id"], "on hold").body["status"] == "On Hold"
    assert problem(service.move(order["id"], "Ordered"), 409, "status_not_allowed")["allowed_statuses"] == [
        "Paid",
        "Cancelled",
    ]
    assert service.move(order["id"], "Paid").status == 200
    problem(service.move(order["id"], "Pending"), 409, "status_not_allowed")
    body = problem(service.move(order["id"], "teleported"), 422, "invalid_request")
    assert "Shipped" in body["errors"][0]["message"]
    assert service.move(order["id"], "CANCELLED").body["status"] == "Cancelled"
    wait_until(lambda: sandbox.stock(product) == 5, "the stock is back")
    assert problem(service.move(order["id"], "Paid"), 409, "status_not_allowed")["allowed_statuses"] == []
    time.sleep(1.5)
    assert sandbox.stock(product) == 5


def test_twenty_people_move_one_order_at_once(service: Service, sandbox: Sandbox, customer: int) -> None:
    order = service.place(customer, (sandbox.product(5), 2)).body
    with ThreadPoolExecutor(20) as people:
        replies = list(people.map(lambda n: service.move(order["id"], ("Paid", "Cancelled")[n % 2]), range(20)))
    final = service.get(f"/orders/{order['id']}").body
    assert {reply.status for reply in replies} <= {200, 409}
    assert final["status"] == "Cancelled"
    assert final["version"] in (2, 3)


def test_lists_page_through_everything_newest_first(service: Service, sandbox: Sandbox, customer: int) -> None:
    product = sandbox.product(100)
    ids = [service.place(customer, (product, 1)).body["id"] for _ in range(7)]
    for path in ("/orders", f"/orders/{customer}", f"/customers/{customer}/orders"):
        seen: list[str] = []
        url = f"{path}?limit=3"
        while url:
            page = service.get(url).body
            seen += [order["id"] for order in page["orders"]]
            url = page["next"]
        assert seen == ids[::-1]


def test_lists_show_what_failed_only_to_who_asks(service: Service, sandbox: Sandbox, customer: int) -> None:
    product, locked = sandbox.product(5), sandbox.product(5, locked=True)
    problem(service.place(customer, (product, 2), (locked, 1)), 500, "order_failed")
    placed = service.place(customer, (product, 1)).body
    assert [order["id"] for order in service.get("/orders").body["orders"]] == [placed["id"]]
    failed = service.get("/orders?status=FAILED").body["orders"]
    assert [(order["status"], order["customer_id"]) for order in failed] == [("Failed", customer)]
    assert len(service.get("/orders?status=failed&status=ordered").body["orders"]) == 2
    wait_until(lambda: sandbox.stock(product) == 4, "what the failed order took is back")


def test_the_last_unit_goes_to_one_of_many(services: list[Service], sandbox: Sandbox, customer: int) -> None:
    product = sandbox.product(10)
    with ThreadPoolExecutor(40) as buyers:
        replies = list(buyers.map(lambda n: services[n % 2].place(customer + n, (product, 1)), range(40)))
    assert sorted(reply.status for reply in replies) == [201] * 10 + [400] * 30
    assert sandbox.stock(product) == 0


def test_what_it_says_about_itself(service: Service) -> None:
    assert service.get("/").body["documentation"] == "/docs"
    assert service.get("/health").body["status"] == "ok"
    assert service.get("/problems/key_in_use").body["status"] == 409
    assert service.get("/problems").body["order_failed"]["status"] == 500
    problem(service.get("/problems/x"), 404, "not_found")
