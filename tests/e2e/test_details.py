"""What others attach to an order: on placing and by PATCH, and that a reference is one order's."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Reply, Sandbox, execute
from tests.e2e.conftest import Service, Start
from tests.e2e.test_contract import problem

_customers = itertools.count(int(time.time()))
DETAILS = {
    "external_reference": "web-4711",
    "metadata": {"channel": "web", "gift": True, "weight": 1.5, "seen": None, "tags": ["a", {"b": "c"}]},
    "notes": {"public": "Ring twice. ☎", "private": "Pays late."},
}


@pytest.fixture
def customer() -> int:
    return next(_customers)


def place(service: Service, customer: int, product: int, headers: Any = None, **details: Any) -> Reply:
    body = {"items": [{"product_id": product, "quantity": 1}], **details}
    return service.http.post(f"{service.url}/orders/{customer}", body, headers=headers or {})


def patch(
    service: Service, order_id: str, body: Any, kind: str = "application/merge-patch+json", **headers: str
) -> Reply:
    given = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = service.http._client.patch(f"{service.url}/orders/{order_id}").headers(given)
    reply = request.body_bytes(json.dumps(body).encode()).build().send()
    found = {name: reply.get_header(name) or "" for name in ("content-type", "etag")}
    return Reply(reply.status, reply.json(), found)


def test_an_order_is_placed_with_fields_for_others_and_found_by_them(
    service: Service, sandbox: Sandbox, customer: int
) -> None:
    product = sandbox.product(5)
    order = place(service, customer, product, **DETAILS).body
    plain = place(service, customer, product, metadata={}, notes={}, external_reference=None).body
    assert {name: order[name] for name in DETAILS} == DETAILS
    assert [plain[name] for name in DETAILS] == [None, {}, {"public": None, "private": None}]
    by_both = f"metadata[channel]=web&number={order['number']}"
    for query in ("external_reference=web-4711", "metadata[channel]=web", by_both):
        assert service.get(f"/orders?{query}").body["orders"] == [order]
    for query in ("external_reference=web", "metadata[gift]=true", "metadata[channel]=shop"):
        assert service.get(f"/orders?{query}").body["orders"] == []


def test_a_cart_is_ordered_with_fields_for_others(service: Service, sandbox: Sandbox, customer: int) -> None:
    sandbox.fill_cart(customer, (sandbox.product(5), 2))
    url = f"{service.url}/customers/{customer}/orders"
    first, second = (service.http.post(url, {"external_reference": f"cart-{customer}"}) for _ in range(2))
    assert (first.status, first.body["external_reference"]) == (201, f"cart-{customer}")
    assert (second.status, second.body) == (201, first.body)


@pytest.mark.parametrize(
    ("details", "pointer"),
    [
        ({"external_reference": ""}, "#/external_reference"),
        ({"external_reference": "x" * 256}, "#/external_reference"),
        ({"external_reference": "a\0"}, "#/external_reference"),
        ({"metadata": []}, "#/metadata"),
        ({"metadata": {"a": "\0"}}, "#/metadata"),
        ({"metadata": {"a": {"b": {"c": {"d": {"e": {}}}}}}}, "#/metadata"),
        ({"notes": "hello"}, "#/notes"),
        ({"notes": {"secret": "x"}}, "#/notes/secret"),
        ({"notes": {"public": "x" * 4001}}, "#/notes/public"),
        ({"note": {}}, "#/note"),
    ],
)
def test_malformed_fields_are_422_and_say_where(
    service: Service, sandbox: Sandbox, customer: int, details: Any, pointer: str
) -> None:
    product = sandbox.product(1)
    order = place(service, customer, product).body
    for reply in (place(service, customer, product, **details), patch(service, order["id"], details)):
        assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == pointer
    assert service.get(f"/orders/{order['id']}").body == order


def test_a_reference_is_one_orders_and_a_second_one_takes_nothing(
    service: Service, sandbox: Sandbox, customer: int, dsn: str
) -> None:
    product, reference, key = sandbox.product(10), f"r-{customer}", {"Idempotency-Key": f"k-{customer}"}
    first = place(service, customer, product, key, external_reference=reference)
    assert (
        problem(place(service, customer, product, external_reference=reference), 409, "external_reference_taken")[
            "order_id"
        ]
        == (first.body["id"])
    )
    assert place(service, customer, product, key, external_reference=reference).body == first.body
    problem(place(service, customer, product, key, external_reference="other"), 422, "key_reused")
    problem(
        place(service, customer, product, key, external_reference=reference, notes={"public": "x"}), 422, "key_reused"
    )
    fresh = {"Idempotency-Key": f"l-{customer}"}
    problem(place(service, customer, product, fresh, external_reference=reference), 409, "external_reference_taken")
    assert place(service, customer, product, fresh, external_reference=f"{reference}-b").status == 201
    assert sandbox.stock(product) == 8
    assert execute(dsn, "SELECT * FROM stock_claims") == []


def test_an_order_that_failed_leaves_its_reference_free(service: Service, sandbox: Sandbox, customer: int) -> None:
    locked, reference = sandbox.product(5, locked=True), f"f-{customer}"
    for _ in range(2):
        problem(place(service, customer, locked, external_reference=reference), 500, "order_failed")
    order = place(service, customer, sandbox.product(5), external_reference=reference)
    assert order.status == 201
    found = service.get(f"/orders?external_reference={reference}&status=failed&status=ordered").body["orders"]
    assert [o["status"] for o in found] == ["Ordered", "Failed", "Failed"]
    assert service.get(f"/orders?external_reference={reference}").body["orders"] == [order.body]


def test_one_reference_from_two_replicas_at_once_is_one_order(start: Start, sandbox: Sandbox, customer: int) -> None:
    replicas = [start(), start()]
    for turn in range(5):
        products, reference = [sandbox.product(10) for _ in range(12)], {"external_reference": f"m-{customer}-{turn}"}
        with ThreadPoolExecutor(12) as clients:
            calls = [
                clients.submit(place, replicas[n % 2], customer, product, **reference)
                for n, product in enumerate(products)
            ]
            replies = [call.result() for call in calls]
        placed = [reply for reply in replies if reply.status == 201]
        others = {reply.body["code"] for reply in replies if reply.status != 201}
        assert (len(placed), others) == (1, {"external_reference_taken"})
        assert sum(sandbox.stock(product) for product in products) == 119


def test_a_merge_patch_changes_what_it_names(service: Service, sandbox: Sandbox, customer: int) -> None:
    order = place(service, customer, sandbox.product(5), **{**DETAILS, "external_reference": f"p-{customer}"}).body
    body = {"metadata": {"channel": None, "weight": 2, "tags": ["z"], "more": {"x": 1, "y": None}}}
    changed = patch(service, order["id"], body).body
    assert changed["metadata"] == {"gift": True, "weight": 2, "seen": None, "tags": ["z"], "more": {"x": 1}}
    assert (changed["version"], changed["notes"], changed["external_reference"]) == (
        2,
        DETAILS["notes"],
        f"p-{customer}",
    )
    assert changed["updated_at"] > order["updated_at"]
    assert service.get("/orders?metadata[channel]=web").body["orders"] == []
    assert patch(service, order["id"], body, "application/json").body == changed
    assert patch(service, order["id"], {}).body == changed
    cleared = patch(
        service, order["id"], {"external_reference": None, "metadata": None, "notes": {"private": None}}
    ).body
    assert [cleared[name] for name in DETAILS] == [None, {}, {"public": "Ring twice. ☎", "private": None}]
    assert service.move(order["id"], "Paid").body["version"] == 4
    assert patch(service, order["id"], {"metadata": {"channel": "shop"}}).body["status"] == "Paid"
    found = service.get("/orders?metadata[channel]=shop").body["orders"]
    assert [o["version"] for o in found] == [5]


def test_a_patch_that_can_not_be(service: Service, sandbox: Sandbox, customer: int) -> None:
    product = sandbox.product(5)
    one, other = (place(service, customer, product, external_reference=f"{n}-{customer}").body for n in "ab")
    reply = patch(service, one["id"], {"external_reference": f"b-{customer}"})
    assert problem(reply, 409, "external_reference_taken")["order_id"] == other["id"]
    problem(patch(service, "019ab1e2-7c3d-7a41-9b52-0d6c3f1e8a77", {}), 404, "order_not_found")
    problem(patch(service, "42", {}), 404, "order_not_found")
    errors = problem(patch(service, one["id"], {"status": "Paid"}), 422, "invalid_request")["errors"]
    assert errors[0]["pointer"] == "#/status"
    problem(patch(service, one["id"], []), 422, "invalid_request")
    problem(patch(service, one["id"], {}, "text/plain"), 422, "invalid_request")
    many = {f"k{n}": 1 for n in range(49)}
    assert patch(service, one["id"], {"metadata": many}).status == 200
    assert problem(patch(service, one["id"], {"metadata": {"x": 1, "y": 2}}), 422, "invalid_request")
    assert service.get(f"/orders/{one['id']}").body["version"] == 2


def test_twenty_people_patch_one_order_at_once_and_none_is_lost(
    service: Service, sandbox: Sandbox, customer: int
) -> None:
    order = place(service, customer, sandbox.product(5)).body
    with ThreadPoolExecutor(20) as people:
        replies = list(people.map(lambda n: patch(service, order["id"], {"metadata": {f"k{n}": "v"}}), range(20)))
    assert {reply.status for reply in replies} == {200}
    final = service.get(f"/orders/{order['id']}").body
    assert (final["metadata"], final["version"]) == ({f"k{n}": "v" for n in range(20)}, 21)
    for n in range(20):
        assert service.get(f"/orders?metadata[k{n}]=v").body["orders"] == [final]
    numbers = [event["number"] for event in service.get(f"/orders/{order['id']}/events").body["events"]]
    assert numbers == list(range(1, 22))


def test_a_patch_is_an_event_and_the_past_shows_what_was_attached_then(
    service: Service, sandbox: Sandbox, customer: int
) -> None:
    details = {**DETAILS, "external_reference": f"h-{customer}"}
    order = place(service, customer, sandbox.product(5), **details).body
    address = f"/orders/{order['id']}"
    body = {"external_reference": f"i-{customer}", "metadata": {"gift": 1}, "notes": {"public": "Ring twice. ☎"}}
    reply = patch(service, order["id"], body, X_Actor="anna", X_Request_ID="r-1", If_Match='"1"')
    assert (reply.status, reply.headers["etag"]) == (200, '"2"')
    same = ("items", "status", "total", "allowed_statuses", "created_at", "notes")
    assert [reply.body[name] for name in same] == [order[name] for name in same]
    event = service.get(f"{address}/events").body["events"][1]
    assert {name: event[name] for name in ("number", "type", "actor", "request_id", "at")} == {
        "number": 2, "type": "described", "actor": "local/anna", "request_id": "r-1", "at": reply.body["updated_at"],
    }  # fmt: skip
    was = {"external_reference": f"h-{customer}", "metadata": DETAILS["metadata"]}
    assert event["before"] == was
    assert event["after"] == {
        "external_reference": f"i-{customer}",
        "metadata": {**order["metadata"], "gift": 1},
    }
    service.move(order["id"], "Paid")
    assert service.get(f"{address}?at=1").body == order
    assert service.get(f"{address}?at=2").body == reply.body
    assert service.get(f"{address}?at={order['updated_at']}").body == order


def test_a_patch_needs_the_version_that_its_author_knows(start: Start, sandbox: Sandbox, customer: int) -> None:
    service = start(orders_require_if_match=True)
    order = place(service, customer, sandbox.product(5)).body
    body = {"metadata": {"a": "b"}}
    problem(patch(service, order["id"], body), 428, "if_match_required")
    stale = problem(patch(service, order["id"], body, If_Match='"7"'), 412, "version_changed")
    assert stale["version"] == 1
    assert patch(service, order["id"], body, If_Match='"1"').body["metadata"] == {"a": "b"}
    problem(patch(service, order["id"], {}, If_Match='"1"'), 412, "version_changed")
    assert [event["number"] for event in service.get(f"/orders/{order['id']}/events").body["events"]] == [1, 2]
