"""An order after it is placed: moved, cancelled, returned and looked back at, over HTTP, by many at once."""

import itertools
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.conftest import ORDERS, Reply, Sandbox, execute, wait_until
from tests.e2e.conftest import Service, Start
from tests.e2e.test_contract import NOWHERE, problem

_customers = itertools.count(int(time.time()) + 10_000_000)


def placed(service: Service, *lines: tuple[int, int], **more: Any) -> dict[str, Any]:
    reply = service.place(next(_customers), *lines, **more)
    assert reply.status == 201, reply
    return dict(reply.body)


def post(service: Service, order: dict[str, Any], what: str, body: Any = None, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.http.post(f"{service.url}/orders/{order['id']}/{what}", body, headers=named)


def events(service: Service, order: dict[str, Any]) -> list[dict[str, Any]]:
    """All of them, page after page."""
    found: list[dict[str, Any]] = []
    address = f"/orders/{order['id']}/events"
    while address:
        page = service.get(address).body
        found += page["events"]
        address = page["next"]
    return found


# Events, and the order as it was ----------------------------------------------------------------------------------


def test_every_change_is_an_event_with_who_why_and_which_request(service: Service, sandbox: Sandbox) -> None:
    anna = {"X-Actor": "anna@shop.example", "X-Request-ID": "req-1"}
    reply = service.place(next(_customers), (sandbox.product(5), 2), headers=anna)
    order = reply.body
    assert reply.headers["x-request-id"] == "req-1"
    url = f"{service.url}/orders/{order['id']}"
    assert service.http.put(url, {"status": "paid", "note": "By bank transfer."}, headers=anna).status == 200
    reply = service.http.put(url, {"status": "Paid"}, headers={"X-Actor": "bob"})  # the same again: no event
    assert reply.body["version"] == 2
    service.move(order["id"], "on hold")
    found = events(service, order)
    assert [(e["number"], e["type"], e["before"], e["after"]) for e in found] == [
        (1, "placed", {"status": "Pending"}, {"status": "Ordered"}),
        (2, "moved", {"status": "Ordered"}, {"status": "Paid"}),
        (3, "moved", {"status": "Paid"}, {"status": "On Hold", "held_from": "Paid"}),
    ]
    assert [(e["actor"], e["note"]) for e in found] == [
        ("local/anna@shop.example", None),
        ("local/anna@shop.example", "By bank transfer."),
        ("local", None),
    ]
    assert [e["request_id"] for e in found[:2]] == ["req-1", "req-1"]
    assert len(found[2]["request_id"]) == 32
    now = service.get(f"/orders/{order['id']}").body
    assert (found[0]["at"], found[2]["at"]) == (order["updated_at"], now["updated_at"])
    problem(service.get(f"/orders/{NOWHERE}/events"), 404, "order_not_found")
    problem(service.get("/orders/42/events"), 404, "order_not_found")


def test_an_order_that_failed_says_why(service: Service, sandbox: Sandbox) -> None:
    customer = next(_customers)
    reply = service.place(customer, (sandbox.product(5, locked=True), 1), headers={"X-Actor": "anna"})
    problem(reply, 500, "order_failed")
    order = service.get(f"/orders/{customer}?status=Failed").body["orders"][0]
    assert order["allowed_statuses"] == []
    assert [(e["number"], e["type"], e["reason"], e["actor"]) for e in events(service, order)] == [
        (1, "failed", "order_failed", "local/anna")
    ]


def test_an_order_is_shown_as_it_was_at_every_version_and_time(service: Service, sandbox: Sandbox) -> None:
    a, b = sandbox.product(9, price=7), sandbox.product(9, price=5)
    order = placed(service, (a, 3), (b, 2))
    url = f"/orders/{order['id']}"
    lines = [item["id"] for item in order["items"]]
    was = [order]
    for step in (
        lambda: service.move(order["id"], "Confirmed"),
        lambda: post(service, order, "cancel", {"items": [{"id": lines[0], "quantity": 1}]}),
        lambda: service.move(order["id"], "On Hold"),
        lambda: post(service, order, "cancel", {"items": [{"id": lines[1], "quantity": 2}]}),
        lambda: service.move(order["id"], "Confirmed"),
        lambda: service.move(order["id"], "Shipped"),
        lambda: post(service, order, "return", {"items": [{"id": lines[0], "quantity": 1}]}),
        lambda: post(service, order, "return"),
    ):
        reply = step()
        assert reply.status == 200, reply
        was.append(reply.body)
    assert [state["version"] for state in was] == list(range(1, 10))
    for state in was:
        reply = service.get(f"{url}?at={state['version']}")
        assert reply.body == state
        assert reply.headers["etag"] == f'"{state["version"]}"'
        assert service.get(f"{url}?at={state['updated_at']}").body == state
    between = was[4]["updated_at"].replace("Z", "+00:00")  # sent as it is: the + arrives as a space
    assert service.get(f"{url}?at={between}").body == was[4]
    assert service.get(f"{url}?at=2999-01-01T00:00:00Z").body == was[-1]
    body = problem(service.get(f"{url}?at=2020-01-01T00:00:00Z"), 404, "not_recorded")
    assert order["updated_at"] in body["detail"]
    problem(service.get(f"{url}?at=10"), 404, "not_recorded")
    for nonsense in ("0", "-1", "yesterday", "2026-11-24", "2026-13-24T00:00:00Z", "9" * 50):
        reply = service.get(f"{url}?at={nonsense}")
        assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == "query/at"
    problem(service.get(f"/orders/{order['customer_id']}?at=1"), 422, "invalid_request")
    problem(service.get(f"/orders/{NOWHERE}?at=1"), 404, "order_not_found")


def test_an_order_from_before_there_was_a_history_begins_where_it_is_known(
    service: Service, sandbox: Sandbox, dsn: str
) -> None:
    order = placed(service, (sandbox.product(5), 1))
    service.move(order["id"], "Paid")
    execute(dsn, "DELETE FROM order_events WHERE order_id = %s", (order["id"],))
    url = f"/orders/{order['id']}"
    assert events(service, order) == []
    assert service.get(f"{url}?at=2").body["status"] == "Paid"
    problem(service.get(f"{url}?at=1"), 404, "not_recorded")
    service.move(order["id"], "Shipped")
    assert [event["number"] for event in events(service, order)] == [3]
    assert service.get(f"{url}?at=2").body["status"] == "Paid"
    body = problem(service.get(f"{url}?at={order['created_at']}"), 404, "not_recorded")
    assert "ask for a version, 2 to 3" in body["detail"]


@pytest.mark.parametrize(
    ("headers", "pointer"),
    [
        ({"X-Request-ID": "a b"}, "header/X-Request-ID"),
        ({"X-Request-ID": "x" * 129}, "header/X-Request-ID"),
        ({"X-Actor": "x" * 101}, "header/X-Actor"),
        ({"X-Actor": "a\tb"}, "header/X-Actor"),
        ({"If-Match": "3"}, "header/If-Match"),
        ({"If-Match": '"3'}, "header/If-Match"),
    ],
)
def test_a_malformed_header_is_422_and_says_which(service: Service, headers: dict[str, str], pointer: str) -> None:
    reply = service.http.put(f"{service.url}/orders/{NOWHERE}", {"status": "Paid"}, headers=headers)
    assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == pointer
    assert reply.headers["x-request-id"]


# Two people at once -----------------------------------------------------------------------------------------------


def test_an_etag_is_the_version_and_spares_reading_again(service: Service, sandbox: Sandbox) -> None:
    reply = service.place(next(_customers), (sandbox.product(5, name='Say "version" : 9, please'), 1))
    order, url = reply.body, f"/orders/{reply.body['id']}"
    assert reply.headers["etag"] == '"1"'
    assert service.get(url).headers["etag"] == '"1"'
    for known in ('"1"', 'W/"1"', '"7", "1"', "*"):
        same = service.get(url, headers={"If-None-Match": known})
        assert (same.status, same.body, same.headers["etag"]) == (304, "", '"1"')
    assert service.move(order["id"], "Paid").headers["etag"] == '"2"'
    assert service.get(url, headers={"If-None-Match": '"1"'}).body["status"] == "Paid"
    assert service.get(url, headers={"If-None-Match": '"x"'}).status == 200
    assert service.get(f"{url}?at=1", headers={"If-None-Match": '"1"'}).status == 304
    assert service.get(f"{url}?at=1", headers={"If-None-Match": '"2"'}).body["status"] == "Ordered"


def test_a_repeated_answer_has_the_etag_of_the_order_in_it(service: Service, sandbox: Sandbox) -> None:
    product, customer = sandbox.product(9, name='Say "version" : 9, please'), next(_customers)
    sandbox.fill_cart(customer, (product, 1))

    def place(key: str, *lines: tuple[int, int]) -> tuple[int, str, int]:
        reply = service.place(customer, *lines, headers={"Idempotency-Key": f"{key}-{customer}"})
        return reply.status, reply.headers["etag"], reply.body["version"]

    assert place("cart") == (201, '"1"', 1)
    assert place("items", (product, 2)) == (201, '"1"', 1)
    for order in service.get(f"/orders/{customer}").body["orders"]:
        assert service.move(order["id"], "Paid").headers["etag"] == '"2"'
    assert place("items", (product, 2)) == place("cart") == (201, '"1"', 1)  # as they were answered first
    assert place("later") == (201, '"2"', 2)  # the cart is an order already, as it is now
    for order in service.get(f"/orders/{customer}").body["orders"]:
        assert service.move(order["id"], "Shipped").headers["etag"] == '"3"'
    assert place("later") == (201, '"2"', 2)


def test_who_has_an_old_version_is_told_the_new_one(service: Service, sandbox: Sandbox) -> None:
    order = placed(service, (sandbox.product(5), 2))
    url = f"{service.url}/orders/{order['id']}"
    assert service.http.put(url, {"status": "Confirmed"}, headers={"If-Match": '"1"'}).headers["etag"] == '"2"'
    for old in ('"1"', 'W/"2"', '"1", "3"', '"' + "9" * 5000 + '"'):
        body = problem(service.http.put(url, {"status": "Paid"}, headers={"If-Match": old}), 412, "version_changed")
        assert body["version"] == 2
    problem(service.http.put(url, {"status": "Confirmed"}, headers={"If-Match": '"1"'}), 412, "version_changed")
    problem(post(service, order, "cancel", If_Match='"1"'), 412, "version_changed")
    assert service.http.put(url, {"status": "Shipped"}, headers={"If-Match": '"1", "2"'}).status == 200
    problem(post(service, order, "return", If_Match='"2"'), 412, "version_changed")
    assert service.http.put(url, {"status": "Delivered"}, headers={"If-Match": "*"}).status == 200


def test_where_it_is_required_a_change_without_if_match_is_428(start: Start, sandbox: Sandbox) -> None:
    service = start(orders_require_if_match=True)
    order = placed(service, (sandbox.product(5), 2))
    problem(service.move(order["id"], "Paid"), 428, "if_match_required")
    problem(post(service, order, "cancel"), 428, "if_match_required")
    problem(post(service, order, "return"), 428, "if_match_required")
    assert post(service, order, "cancel", If_Match='"1"').status == 200


def test_two_hundred_puts_at_once_lose_none(services: list[Service], sandbox: Sandbox) -> None:
    """On hold, and back: every PUT that changed something is one event, and every other is told the truth."""
    order = placed(services[0], (sandbox.product(5), 1))
    with ThreadPoolExecutor(40) as people:
        replies = list(
            people.map(lambda n: services[n % 2].move(order["id"], ("On Hold", "Ordered")[n // 2 % 2]), range(200))
        )
    found = events(services[0], order)
    assert [event["number"] for event in found] == list(range(1, len(found) + 1))
    assert len(found) > 20
    assert services[1].get(f"/orders/{order['id']}").body["version"] == len(found)
    assert {reply.status for reply in replies} == {200}
    after = {event["number"]: event["after"]["status"] for event in found}
    for n, reply in enumerate(replies):
        assert reply.body["status"] == ("On Hold", "Ordered")[n // 2 % 2]
        assert reply.body["status"] == after[reply.body["version"]]
    assert {reply.body["version"] for reply in replies} | {1} == set(after)  # each event is somebody's answer
    times = [event["at"] for event in found]
    assert times == sorted(times)


def test_two_hundred_puts_with_if_match_have_one_winner_per_version(service: Service, sandbox: Sandbox) -> None:
    order = placed(service, (sandbox.product(5), 1))
    url = f"{service.url}/orders/{order['id']}"
    with ThreadPoolExecutor(40) as people:
        replies = list(
            people.map(
                lambda n: service.http.put(
                    url, {"status": ("Confirmed", "Paid", "On Hold")[n % 3]}, headers={"If-Match": '"1"'}
                ),
                range(200),
            )
        )
    assert sorted({reply.status for reply in replies}) == [200, 412]
    assert [reply.status for reply in replies].count(200) == 1
    assert len(events(service, order)) == 2


# Cancelling and returning -----------------------------------------------------------------------------------------


def test_cancelling_in_parts(service: Service, sandbox: Sandbox) -> None:
    a, b = sandbox.product(10, price=7), sandbox.product(10, price=5)
    order = placed(service, (a, 3), (b, 1))
    first, second = (item["id"] for item in order["items"])
    reply = post(
        service, order, "cancel", {"reason": "customer", "note": "One less.", "items": [{"id": first, "quantity": 1}]}
    )
    assert (reply.status, reply.headers["etag"]) == (200, '"2"')
    assert (reply.body["status"], reply.body["total"]) == ("Ordered", 19)
    assert [(i["quantity"], i["cancelled"], i["total"]) for i in reply.body["items"]] == [(2, 1, 14), (1, 0, 5)]
    wait_until(lambda: sandbox.stock(a) == 8, "the unit is back")
    reply = post(service, order, "cancel", {"items": [{"id": second, "quantity": 1}], "restock": False})
    assert [(i["quantity"], i["cancelled"]) for i in reply.body["items"]] == [(2, 1), (0, 1)]
    body = problem(post(service, order, "cancel", {"items": [{"id": first, "quantity": 3}]}), 409, "quantity_exceeded")
    assert [(e["pointer"], e["left"]) for e in body["errors"]] == [("#/items/0/quantity", 2)]
    body = problem(post(service, order, "cancel", {"items": [{"id": 2**40, "quantity": 3}]}), 422, "invalid_request")
    assert body["errors"][0]["pointer"] == "#/items/0/id"
    last = post(service, order, "cancel", {"items": [{"id": first, "quantity": 1}, {"id": first, "quantity": 1}]}).body
    assert (last["status"], last["total"], last["allowed_statuses"]) == ("Cancelled", 14, [])
    wait_until(lambda: sandbox.stock(a) == 10, "all of the first product is back")
    assert sandbox.stock(b) == 9
    assert [
        (e["type"], e["reason"], e["note"], (e["details"] or {}).get("restock")) for e in events(service, order)
    ] == [
        ("placed", None, None, None),
        ("cancelled", "customer", "One less.", True),
        ("cancelled", None, None, False),
        ("cancelled", None, None, True),
    ]
    assert post(service, order, "cancel").body == last  # all of it again: it is cancelled already
    problem(post(service, order, "cancel", {"items": [{"id": first, "quantity": 1}]}), 409, "status_not_allowed")
    time.sleep(1.5)
    assert (sandbox.stock(a), sandbox.stock(b)) == (10, 9)


def test_a_partial_cancellation_that_is_sent_again_with_its_key_happens_once(
    service: Service, sandbox: Sandbox
) -> None:
    product = sandbox.product(10)
    order, other = placed(service, (product, 5)), placed(service, (product, 1))
    body = {"items": [{"id": order["items"][0]["id"], "quantity": 1}]}
    key = f"c-{order['number']}"
    with ThreadPoolExecutor(8) as impatient:
        replies = list(impatient.map(lambda _: post(service, order, "cancel", body, Idempotency_Key=key), range(8)))
    assert {reply.status for reply in replies} == {200}
    assert len({str(reply.body) for reply in replies}) == 1
    assert sorted(reply.headers.get("idempotent-replayed", "") for reply in replies) == ["", *["true"] * 7]
    assert replies[0].headers["etag"] == '"2"'
    assert service.get(f"/orders/{order['id']}").body["items"][0]["quantity"] == 4
    problem(post(service, order, "return", body, Idempotency_Key=key), 409, "status_not_allowed")  # another key there
    problem(post(service, other, "cancel", Idempotency_Key=key), 422, "key_reused")
    assert service.get(f"/orders/{other['id']}").body["status"] == "Ordered"
    wait_until(lambda: sandbox.stock(product) == 5, "the unit is back")


def test_returning_in_parts(service: Service, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    order = placed(service, (product, 4))
    line = order["items"][0]["id"]
    problem(post(service, order, "return"), 409, "status_not_allowed")
    service.move(order["id"], "Shipped")
    some = [{"id": line, "quantity": 1}, {"id": line, "quantity": 1, "condition": "damaged"}]
    reply = post(service, order, "return", {"items": some, "reason": "customer"})
    assert (reply.status, reply.body["status"], reply.body["items"][0]["returned"]) == (200, "Shipped", 2)
    assert (reply.body["total"], reply.body["items"][0]["quantity"]) == (40, 4)
    wait_until(lambda: sandbox.stock(product) == 7, "one is back in stock")
    reply = post(service, order, "return", {"items": [{"id": line, "quantity": 3}]})
    assert problem(reply, 409, "quantity_exceeded")["errors"][0]["left"] == 2
    rest = [{"id": line, "quantity": 2, "condition": "written off"}]
    assert post(service, order, "return", {"items": rest}).body["status"] == "Returned"
    assert events(service, order)[-1]["details"] == {"items": rest}
    assert service.move(order["id"], "Refunded").status == 200
    time.sleep(1.5)
    assert sandbox.stock(product) == 7


def test_goods_can_be_recorded_after_the_order_is_returned(service: Service, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    order = placed(service, (product, 2))
    service.move(order["id"], "Delivered")
    service.move(order["id"], "Returned")
    assert sandbox.stock(product) == 8  # they are looked at first
    assert post(service, order, "return").body["items"][0]["returned"] == 2
    assert post(service, order, "return").body["version"] == 4  # nothing is left: nothing changes
    wait_until(lambda: sandbox.stock(product) == 10, "they are back in stock")


@pytest.mark.parametrize(
    ("what", "body", "pointer"),
    [
        ("cancel", {"reason": "boredom"}, "#/reason"),
        ("cancel", {"restock": 1}, "#/restock"),
        ("cancel", {"items": []}, "#/items"),
        ("cancel", {"items": [{"id": 1, "quantity": 0}]}, "#/items/0/quantity"),
        ("cancel", {"items": [{"id": 1}]}, "#/items/0/quantity"),
        ("cancel", {"items": [{"id": 1, "quantity": 1, "condition": "damaged"}]}, "#/items/0/condition"),
        ("cancel", {"note": "x" * 1001}, "#/note"),
        ("cancel", {"note": "a\x00b"}, "#/note"),
        ("return", {"restock": True}, "#/restock"),
        ("return", {"items": [{"id": 1, "quantity": 1, "condition": "lost"}]}, "#/items/0/condition"),
        ("return", [], "#"),
    ],
)
def test_a_malformed_change_is_422_and_says_where(service: Service, what: str, body: Any, pointer: str) -> None:
    reply = post(service, {"id": NOWHERE}, what, body)
    assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == pointer


def test_cancelling_what_the_catalog_no_longer_has_is_recorded_and_the_doctor_lists_it(
    service: Service, sandbox: Sandbox, dsn: str
) -> None:
    product = sandbox.product(10)
    order = placed(service, (product, 2))
    execute(dsn, "UPDATE order_items SET product_id = 999999999999")  # a product that the catalog doesn't know
    assert post(service, order, "cancel", {"reason": "inventory"}).body["status"] == "Cancelled"
    wait_until(
        lambda: execute(dsn, "SELECT 1 FROM stock_returns WHERE retry_at > queued_at + interval '4 s'"), "it was tried"
    )
    execute(dsn, "UPDATE stock_returns SET queued_at = queued_at - interval '2 min'")
    environment = {
        **os.environ,
        "DATABASE_URL": dsn,
        "CATALOG_URL": sandbox.catalog_url,
        "CART_URL": sandbox.cart_url,
    }
    doctor = subprocess.run([*ORDERS, "doctor"], env=environment, capture_output=True, text=True, check=False)
    assert doctor.returncode == 1
    assert "Product 999999999999: stock not taken back since" in doctor.stdout
    assert sandbox.stock(product) == 8


# What time brings, and the table of statuses ----------------------------------------------------------------------


def test_orders_that_stay_too_long_are_cancelled_and_restocked(start: Start, sandbox: Sandbox) -> None:
    replicas = [start(orders_expire="ordered:3s"), start(orders_expire="ordered:3s")]
    product = sandbox.product(100)
    unpaid, paid, held = (placed(replicas[n % 2], (product, 1)) for n in range(3))
    replicas[0].move(paid["id"], "Paid")
    replicas[0].move(held["id"], "On Hold")
    wait_until(lambda: replicas[0].get(f"/orders/{unpaid['id']}").body["status"] == "Cancelled", "it has expired")
    replicas[0].move(held["id"], "Ordered")  # from now on it has its time again
    wait_until(lambda: replicas[0].get(f"/orders/{held['id']}").body["status"] == "Cancelled", "that has expired too")
    for order in (unpaid, held):
        before, last = events(replicas[1], order)[-2:]
        assert (last["type"], last["actor"], last["reason"]) == ("cancelled", "expiry", "expired")
        assert datetime.fromisoformat(last["at"]) - datetime.fromisoformat(before["at"]) >= timedelta(seconds=3)
    wait_until(lambda: sandbox.stock(product) == 99, "their stock is back")
    assert replicas[0].get(f"/orders/{paid['id']}").body["status"] == "Paid"


def test_the_workflow_and_a_move_from_the_command_line(service: Service, sandbox: Sandbox, dsn: str) -> None:
    table = service.get("/workflow").body
    assert table["statuses"][1]["status"] == "Ordered"
    assert table["mermaid"].startswith("flowchart LR")
    order = placed(service, (sandbox.product(5), 2))
    environment = {**os.environ, "DATABASE_URL": dsn}

    def orders(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*ORDERS, *arguments], env=environment, capture_output=True, text=True, check=False)

    number = str(order["number"])
    assert orders("move", number, "paid", "--note", "Cash.").stdout == f"Order {number} is Paid.\n"
    refused = orders("move", number, "Ordered")
    assert (refused.returncode, "can't become Ordered" in refused.stderr) == (1, True)
    assert "teleported" in orders("move", number, "teleported").stderr
    assert orders("move", "0", "Paid").returncode == 1
    shown = orders("show", order["id"]).stdout
    assert '"actor": "cli"' in shown
    assert '"note": "Cash."' in shown
    assert orders("workflow").stdout == table["mermaid"]
