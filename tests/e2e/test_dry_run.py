"""`dry_run=true` tells what a write would do, and does none of it."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import Reply, Sandbox, execute, wait_until
from tests.e2e.conftest import Service, Start
from tests.e2e.test_bulk import contents, move, place, wish
from tests.e2e.test_contract import NOWHERE, problem
from tests.e2e.test_life import events, placed

_customers = itertools.count(int(time.time()) + 30_000_000)
DRY = "?dry_run=true"
NOBODY_KNOWS = {"at", "created_at", "updated_at", "request_id", "id", "number"}


@contextmanager
def nothing_happens(service: Service, sandbox: Sandbox, dsn: str) -> Iterator[None]:
    """Every row of every table, every sequence, every product and every cart is what it was, and no PUT came."""
    wait_until(lambda: not execute(dsn, "SELECT 1 FROM cart_closings UNION ALL SELECT 1 FROM stock_claims"), "quiet")
    wait_until(lambda: not execute(dsn, "SELECT 1 FROM stock_returns WHERE returned_at IS NULL"), "nothing is due")
    before = world(sandbox, dsn)
    yield
    time.sleep(0.3)  # what would be done afterwards, has been done by now
    assert world(sandbox, dsn) == before


def world(sandbox: Sandbox, dsn: str) -> dict[str, Any]:
    sequences = execute(dsn, "SELECT sequencename, last_value FROM pg_sequences ORDER BY 1")
    puts, page = [], None
    while page is None or page:
        after = puts[-1]["id"] if puts else 0
        page = sandbox.http.get(f"{sandbox.catalog_url}/journal?after={after}").body["puts"]
        puts += page
    products = sandbox.http.get(f"{sandbox.catalog_url}/products").body
    carts = sandbox.http.get(f"{sandbox.cart_url}/carts").body
    kept = {table: rows for table, rows in contents(dsn).items() if table != "events_head"}  # the assigner's own
    return {**kept, "sequences": sequences, "puts": puts, "products": products, "carts": carts}


def preview(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, reply
    assert reply.body.keys() == {"dry_run", "order", "stock", "events"}
    assert reply.body["dry_run"] is True
    assert "etag" not in reply.headers
    assert "location" not in reply.headers
    return dict(reply.body)


def foreseeable(document: Any) -> Any:
    """Without what only the doing tells."""
    if isinstance(document, dict):
        return {name: foreseeable(value) for name, value in document.items() if name not in NOBODY_KNOWS}
    return [foreseeable(value) for value in document] if isinstance(document, list) else document


# Placing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/orders/{}", "/customers/{}/orders"])
def test_an_order_of_items_as_it_would_be(service: Service, sandbox: Sandbox, dsn: str, address: str) -> None:
    a, b = sandbox.product(10, price=7, name='Say "ü" & 1'), sandbox.product(5)
    url = service.url + address.format(next(_customers))
    items = [(b, 1), (a, 2), (b, 2)]
    body = {"items": [{"product_id": product_id, "quantity": quantity} for product_id, quantity in items]}
    headers = {"Idempotency-Key": f"dry-{next(_customers)}", "X-Actor": "anna"}
    with nothing_happens(service, sandbox, dsn):
        shown = preview(service.http.post(url + DRY, body, headers=headers))
    assert (shown["order"]["id"], shown["order"]["number"]) == (None, None)
    assert [item["id"] for item in shown["order"]["items"]] == [None, None]
    assert shown["stock"] == [
        {"product_id": a, "before": 10, "after": 8},
        {"product_id": b, "before": 5, "after": 2},
    ]
    reply = service.http.post(url + "?dry_run=false", body, headers=headers)  # the key was not used up
    assert (reply.status, "idempotent-replayed" in reply.headers) == (201, False)
    assert shown["order"].keys() == reply.body.keys()
    assert foreseeable(shown["order"]) == foreseeable(reply.body)
    assert foreseeable(shown["events"]) == foreseeable(events(service, reply.body))
    assert (sandbox.stock(a), sandbox.stock(b)) == (8, 2)
    with nothing_happens(service, sandbox, dsn):
        again = service.http.post(url + DRY, body, headers=headers)  # as the real one: the first outcome
    assert again.headers["idempotent-replayed"] == "true"
    assert preview(again) == {"dry_run": True, "order": reply.body, "stock": [], "events": []}


def test_a_cart_as_it_would_be_ordered_stays_open(service: Service, sandbox: Sandbox, dsn: str) -> None:
    product, customer = sandbox.product(10), next(_customers)
    cart = sandbox.fill_cart(customer, (product, 3))
    url = f"{service.url}/orders/{customer}"
    key = {"Idempotency-Key": f"dry-{next(_customers)}"}
    with nothing_happens(service, sandbox, dsn):
        shown = preview(service.http.post(url + DRY, headers=key))
    assert shown["stock"] == [{"product_id": product, "before": 10, "after": 7}]
    assert sandbox.cart_status(cart) == "Active"
    order = service.http.post(url).body
    assert foreseeable(shown["order"]) == foreseeable(order)
    with nothing_happens(service, sandbox, dsn):  # it is closed: the same order, and its key is not remembered either
        assert preview(service.http.post(url + DRY, headers=key))["order"] == order


def test_a_cart_that_is_ordered_and_not_closed_yet_would_be_the_same_order(
    service: Service, sandbox: Sandbox, dsn: str
) -> None:
    product, customer = sandbox.product(10), next(_customers)
    cart = sandbox.fill_cart(customer, (product, 3))
    order = service.place(customer, (product, 1)).body
    execute(dsn, "UPDATE orders SET cart_id = %s", (cart,))  # as if it were of the cart, which is open
    with nothing_happens(service, sandbox, dsn):
        shown = preview(service.http.post(f"{service.url}/orders/{customer}{DRY}"))
    assert (shown["order"], shown["stock"], shown["events"]) == (order, [], [])


def test_stock_that_is_due_back_is_counted(start: Start, sandbox: Sandbox) -> None:
    service = start(orders_recovery_interval_s=3600)
    product = sandbox.product(5)
    order = placed(service, (product, 4))
    service.move(order["id"], "Cancelled")
    reply = service.http.post(
        f"{service.url}/orders/{next(_customers)}{DRY}", {"items": [{"product_id": product, "quantity": 5}]}
    )
    assert preview(reply)["stock"] == [{"product_id": product, "before": 1, "after": 0}]


def test_what_would_be_refused_is_refused_in_the_same_words(service: Service, sandbox: Sandbox, dsn: str) -> None:
    scarce, dear, customer = sandbox.product(1), sandbox.product(10**9, price=2**62), next(_customers)
    empty, nobody = next(_customers), next(_customers)
    sandbox.fill_cart(empty)

    def ask(customer: int, *items: tuple[int, int], query: str = "") -> Reply:
        body = {"items": [{"product_id": p, "quantity": quantity} for p, quantity in items]} if items else None
        return service.http.post(f"{service.url}/orders/{customer}{query}", body)

    for code, question in {
        "insufficient_inventory": (customer, (scarce, 2), (2**62, 1)),
        "total_too_large": (customer, (dear, 9)),
        "cart_not_found": (nobody,),
        "cart_empty": (empty,),
        "invalid_request": (customer, (scarce, 0)),
    }.items():
        with nothing_happens(service, sandbox, dsn):
            would = ask(*question, query=DRY)
        assert would.body["code"] == code
        assert (would.status, would.body) == ((real := ask(*question)).status, real.body)


def test_a_key_of_another_request_or_of_a_refusal_is_told_as_it_would_be(service: Service, sandbox: Sandbox) -> None:
    product, customer, key = sandbox.product(1), next(_customers), {"Idempotency-Key": f"dry-{next(_customers)}"}
    url = f"{service.url}/orders/{customer}{DRY}"
    refused = service.place(customer, (product, 2), headers=key)
    sandbox.restock(product, 5)
    reply = service.http.post(url, {"items": [{"product_id": product, "quantity": 2}]}, headers=key)
    assert (reply.status, reply.body, reply.headers["idempotent-replayed"]) == (400, refused.body, "true")
    assert reply.headers["content-type"] == "application/problem+json"
    problem(service.http.post(url, {"items": [{"product_id": product, "quantity": 1}]}, headers=key), 422, "key_reused")


def test_a_catalog_that_does_not_answer_is_told(start: Start, sandbox: Sandbox) -> None:
    service = start(orders_request_deadline_s=2)
    product = sandbox.product(5)
    order = placed(service, (product, 2))
    sandbox.catalog_faults(error_rate=1)
    reply = service.http.post(
        f"{service.url}/orders/{next(_customers)}{DRY}", {"items": [{"product_id": product, "quantity": 1}]}
    )
    problem(reply, 500, "catalog_unavailable")
    reply = service.http.put(f"{service.url}/orders/{order['id']}{DRY}", {"status": "Cancelled"})
    assert preview(reply)["stock"] == [{"product_id": product, "before": None, "after": None}]


# Changing ---------------------------------------------------------------------------------------------------------


def ask(service: Service, order: dict[str, Any], how: str, body: Any, query: str, **headers: str) -> Reply:
    method, path = ("PUT", "") if how == "move" else ("POST", f"/{how}")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.http.send(method, f"{service.url}/orders/{order['id']}{path}{query}", body, headers=named)


CHANGES: list[tuple[str, str, Any, int | None]] = [
    ("Ordered", "move", {"status": "paid", "note": "In cash."}, None),
    ("Ordered", "move", {"status": "On Hold"}, None),
    ("Ordered", "move", {"status": "Ordered"}, None),
    ("Ordered", "move", {"status": "Cancelled"}, 4),
    ("Ordered", "cancel", {"reason": "customer"}, 4),
    ("Ordered", "cancel", {"restock": False}, None),
    ("Ordered", "cancel", {"items": [{"id": 0, "quantity": 3}]}, 3),
    (
        "Shipped",
        "return",
        {"items": [{"id": 0, "quantity": 1}, {"id": 0, "quantity": 1, "condition": "damaged"}]},
        1,
    ),
    ("Shipped", "return", None, 4),
]
"""From which status, how, with which body, and how many of four units go back then."""


def test_changes_as_they_would_be(service: Service, sandbox: Sandbox, dsn: str) -> None:
    for before, how, body, units_back in CHANGES:
        product = sandbox.product(10)
        order = placed(service, (product, 4))
        service.move(order["id"], before)
        for unit in (body or {}).get("items", ()):
            unit["id"] = order["items"][0]["id"]
        headers = {"X_Actor": "anna", **({} if how == "move" else {"Idempotency_Key": f"dry-{next(_customers)}"})}
        with nothing_happens(service, sandbox, dsn):
            shown = preview(ask(service, order, how, body, DRY, **headers))
        was = events(service, order)
        stock = [{"product_id": product, "before": 6, "after": 6 + units_back}] if units_back else []
        assert shown["stock"] == stock
        assert shown["order"]["id"] == order["id"]
        real = ask(service, order, how, body, "", **headers)
        assert (real.status, "idempotent-replayed" in real.headers) == (200, False)
        assert foreseeable(shown["order"]) == foreseeable(real.body)
        assert (shown["order"]["version"], shown["order"]["number"]) == (real.body["version"], real.body["number"])
        new = events(service, order)[len(was) :]
        assert foreseeable(shown["events"]) == foreseeable(new)
        assert [event["number"] for event in shown["events"]] == [event["number"] for event in new]
        if units_back:
            wait_until(lambda p=product, n=6 + units_back: sandbox.stock(p) == n, "it is back, as foretold")


def test_a_change_that_would_be_refused(service: Service, sandbox: Sandbox, dsn: str) -> None:
    order = placed(service, (sandbox.product(5), 2))
    too_many = {"items": [{"id": order["items"][0]["id"], "quantity": 3}]}
    with nothing_happens(service, sandbox, dsn):
        body = problem(ask(service, order, "move", {"status": "Pending"}, DRY), 409, "status_not_allowed")
        assert body["allowed_statuses"] == order["allowed_statuses"]
        problem(ask(service, order, "return", None, DRY), 409, "status_not_allowed")
        problem(ask(service, order, "cancel", too_many, DRY), 409, "quantity_exceeded")
        problem(ask(service, order, "move", {"status": "Paid"}, DRY, If_Match='"2"'), 412, "version_changed")
        problem(ask(service, {"id": NOWHERE}, "move", {"status": "Paid"}, DRY), 404, "order_not_found")
        problem(ask(service, {"id": NOWHERE}, "cancel", None, DRY, Idempotency_Key="k"), 404, "order_not_found")


def test_a_key_of_a_change_that_was_made_is_told_as_it_would_be(service: Service, sandbox: Sandbox, dsn: str) -> None:
    order = placed(service, (sandbox.product(5), 2))
    body, key = {"items": [{"id": order["items"][0]["id"], "quantity": 1}]}, f"dry-{next(_customers)}"
    real = ask(service, order, "cancel", body, "", Idempotency_Key=key)
    with nothing_happens(service, sandbox, dsn):
        again = ask(service, order, "cancel", body, DRY, Idempotency_Key=key)
        problem(ask(service, order, "cancel", None, DRY, Idempotency_Key=key), 422, "key_reused")
    assert again.headers["idempotent-replayed"] == "true"
    assert preview(again) == {"dry_run": True, "order": real.body, "stock": [], "events": []}


# Many at once -----------------------------------------------------------------------------------------------------


def test_a_batch_of_orders_as_it_would_be(service: Service, sandbox: Sandbox, dsn: str) -> None:
    product, customer = sandbox.product(5), next(_customers)
    sandbox.fill_cart(customer, (product, 1))
    wishes = [wish((product, 2), key=f"dry-{next(_customers)}") for _ in range(3)]
    wishes += [wish(customer=customer), wish(customer=customer), wish(customer=next(_customers))]
    with nothing_happens(service, sandbox, dsn):
        reply = place(service, *wishes, query=DRY)
    assert reply.status == 200
    assert reply.body.keys() == {"dry_run", "results", "stock"}
    found = reply.body["results"]
    assert [result["status"] for result in found] == [201, 201, 400, 201, 201, 404]
    assert found[2]["problem"]["errors"][0]["available"] == 1
    assert [result.get("replayed") for result in found[3:5]] == [None, True]
    assert found[3]["order"] == found[4]["order"]
    assert [len(result.get("events", ())) for result in found] == [1, 1, 0, 1, 0, 0]
    assert reply.body["stock"] == [{"product_id": product, "before": 5, "after": 0}]
    real = place(service, *wishes[:2]).body["results"]
    for would, did in zip(found, real, strict=False):
        assert foreseeable(would["order"]) == foreseeable(did["order"])
    with nothing_happens(service, sandbox, dsn):
        again = place(service, *wishes[:2], query=DRY).body
    assert again == {"dry_run": True, "results": [{**r, "replayed": True, "events": []} for r in real], "stock": []}


@pytest.mark.parametrize("policy", ["each", "all_or_nothing"])
def test_a_batch_of_moves_as_it_would_be(service: Service, sandbox: Sandbox, dsn: str, policy: str) -> None:
    product = sandbox.product(10)
    orders = [placed(service, (product, 2)) for _ in range(3)]
    wanted = [{"id": order["id"], "status": "Cancelled", "note": "All of it."} for order in orders[:2]]
    with nothing_happens(service, sandbox, dsn):
        shown = move(service, wanted, policy, query=DRY).body
    assert shown.keys() == {"dry_run", "results", "stock"}
    assert shown["stock"] == [{"product_id": product, "before": 4, "after": 8}]
    bad = [*wanted, {"id": orders[2]["id"], "status": "Pending"}]
    with nothing_happens(service, sandbox, dsn):
        reply = move(service, bad, policy, query=DRY)
    if policy == "all_or_nothing":
        assert problem(reply, 409, "batch_refused")["errors"][0]["pointer"] == "#/orders/2"
    else:
        assert [result["status"] for result in reply.body["results"]] == [200, 200, 409]
    real = move(service, wanted, policy).body["results"]
    for would, did in zip(shown["results"], real, strict=True):
        assert foreseeable({**would, "events": None}) == foreseeable({**did, "events": None})
        assert foreseeable(would["events"]) == foreseeable(events(service, did["order"])[1:])


# What others attach -----------------------------------------------------------------------------------------------


def attached(reference: str) -> dict[str, Any]:
    return {"external_reference": reference, "metadata": {"channel": "web"}, "notes": {"private": "Ring twice."}}


def test_fields_for_others_are_shown_and_kept_also_in_a_batch(service: Service, sandbox: Sandbox, dsn: str) -> None:
    product, reference = sandbox.product(9), f"dry-{next(_customers)}"
    entry = {**wish((product, 2)), **attached(reference)}
    with nothing_happens(service, sandbox, dsn):
        shown = place(service, entry, query=DRY).body["results"][0]["order"]
        twice = place(service, entry, {**wish((product, 1)), **attached(reference)}, query=DRY).body["results"]
    assert [result["status"] for result in twice] == [201, 409]
    order = place(service, entry).body["results"][0]["order"]
    assert order["metadata"] == {"channel": "web"}
    assert foreseeable(shown) == foreseeable(order)
    with nothing_happens(service, sandbox, dsn):
        taken = service.http.post(
            f"{service.url}/orders/{order['customer_id']}{DRY}", {"items": entry["items"], **attached(reference)}
        )
    assert problem(taken, 409, "external_reference_taken").get("order_id") == order["id"]


def test_a_patch_as_it_would_be(service: Service, sandbox: Sandbox, dsn: str) -> None:
    product, reference = sandbox.product(9), f"dry-{next(_customers)}"
    order, other = (placed(service, (product, 1)) for _ in range(2))
    url, patch = f"{service.url}/orders/{order['id']}", attached(reference)
    with nothing_happens(service, sandbox, dsn):
        shown = preview(service.http.send("PATCH", url + DRY, patch))
    assert shown["stock"] == []
    real = service.http.send("PATCH", url, patch).body
    assert foreseeable(shown["order"]) == foreseeable(real)
    assert foreseeable(shown["events"]) == foreseeable(events(service, order)[1:])
    with nothing_happens(service, sandbox, dsn):
        taken = service.http.send(
            "PATCH", f"{service.url}/orders/{other['id']}{DRY}", {"external_reference": reference}
        )
    assert problem(taken, 409, "external_reference_taken").get("order_id") is None  # another customer's


# The parameter ----------------------------------------------------------------------------------------------------


MALFORMED = [
    ("?dry_run=1", "query/dry_run"),
    ("?dry_run=yes", "query/dry_run"),
    ("?dry_run=True", "query/dry_run"),
    ("?dry_run=", "query/dry_run"),
    ("?dry_run", "query/dry_run"),
    ("?dry_run=true&dry_run=false", "query/dry_run"),
    ("?dry_run=true&dry=1", "query/dry"),
    ("?dryrun=true", "query/dryrun"),
]


def test_anything_but_true_and_false_is_422_on_every_write_and_does_nothing(
    service: Service, sandbox: Sandbox, dsn: str
) -> None:
    product = sandbox.product(5)
    order = placed(service, (product, 1))
    items = {"items": [{"product_id": product, "quantity": 1}]}
    writes = [
        ("POST", f"/orders/{next(_customers)}", items),
        ("POST", f"/customers/{next(_customers)}/orders", items),
        ("PUT", f"/orders/{order['id']}", {"status": "Paid"}),
        ("PATCH", f"/orders/{order['id']}", {"metadata": {"channel": "web"}}),
        ("POST", f"/orders/{order['id']}/cancel", None),
        ("POST", f"/orders/{order['id']}/return", None),
        ("POST", "/orders:batch", {"orders": [wish((product, 1))]}),
        ("PUT", "/orders:batch", {"orders": [{"id": order["id"], "status": "Paid"}]}),
    ]
    with nothing_happens(service, sandbox, dsn):
        for (method, path, body), (query, pointer) in itertools.product(writes, MALFORMED):
            reply = service.http.send(method, f"{service.url}{path}{query}", body)
            assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == pointer, (path, query)
