"""Many orders in one request: each has its result, and together they promise what each does alone."""

import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Reply, Sandbox, execute, wait_until
from tests.e2e.conftest import Service, Start
from tests.e2e.test_contract import NOWHERE, problem
from tests.e2e.test_life import events, placed

_customers = itertools.count(int(time.time()) + 20_000_000)


def wish(*lines: tuple[int, int], customer: int | None = None, key: str | None = None) -> dict[str, Any]:
    items = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]
    return {
        "customer_id": customer or next(_customers),
        **({"items": items} if lines else {}),
        **({"idempotency_key": key} if key else {}),
    }


def place(service: Service, *wishes: dict[str, Any], query: str = "", **more: Any) -> Reply:
    return service.http.post(f"{service.url}/orders:batch{query}", {"orders": list(wishes)}, **more)


def move(service: Service, orders: list[dict[str, Any]], policy: str | None = None, query: str = "") -> Reply:
    body = {"orders": orders, **({"error_policy": policy} if policy else {})}
    return service.http.put(f"{service.url}/orders:batch{query}", body)


def results(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 200, reply
    assert list(reply.body) == ["results"]
    found: list[dict[str, Any]] = reply.body["results"]
    return found


def statuses(reply: Reply) -> list[int]:
    return [result["status"] for result in results(reply)]


def many(service: Service, sandbox: Sandbox, count: int) -> list[dict[str, Any]]:
    product = sandbox.product(count)
    orders: list[dict[str, Any]] = []
    for n in range(0, count, 100):
        found = results(place(service, *(wish((product, 1)) for _ in range(min(100, count - n)))))
        orders += [result["order"] for result in found]
    return orders


# Placing ----------------------------------------------------------------------------------------------------------


def test_each_order_has_its_own_result_in_the_order_of_the_request(service: Service, sandbox: Sandbox) -> None:
    a, b, nobody, customer = sandbox.product(10), sandbox.product(1), next(_customers), next(_customers)
    cart = sandbox.fill_cart(customer, (a, 3))
    anna = {"X-Actor": "anna", "X-Request-ID": "bulk-1"}
    reply = place(
        service, wish((a, 1)), wish((a, 1), (b, 2)), wish(customer=nobody), wish(customer=customer), headers=anna
    )
    first, short, none, of_cart = results(reply)
    assert statuses(reply) == [201, 400, 404, 201]
    assert service.get(f"/orders/{first['order']['id']}").body == first["order"]
    assert [(e["actor"], e["request_id"]) for e in events(service, first["order"])] == [("local/anna", "bulk-1")]
    assert short["problem"]["code"] == "insufficient_inventory"
    assert short["problem"]["instance"] == "/orders:batch"
    assert [e["pointer"] for e in short["problem"]["errors"]] == ["#/items/1"]
    assert none["problem"]["code"] == "cart_not_found"
    assert of_cart["order"]["customer_id"] == customer
    assert (sandbox.stock(a), sandbox.stock(b), sandbox.cart_status(cart)) == (6, 1, "Ordered")


def test_a_hundred_orders_for_one_scarce_product_sell_exactly_what_there_is(start: Start, sandbox: Sandbox) -> None:
    replicas = [start(), start()]
    product = sandbox.product(60)
    with ThreadPoolExecutor(2) as two:
        replies = list(two.map(lambda s: place(s, *(wish((product, 1)) for _ in range(100))), replicas))
    told = [status for reply in replies for status in statuses(reply)]
    assert (told.count(201), told.count(400), len(told)) == (60, 140, 200)
    ids = {result["order"]["id"] for reply in replies for result in results(reply) if result["status"] == 201}
    assert len(ids) == 60
    assert sandbox.stock(product) == 0


def test_they_share_the_batches_of_placing(service: Service, sandbox: Sandbox, dsn: str) -> None:
    product = sandbox.product(1000)
    assert set(statuses(place(service, *(wish((product, 1)) for _ in range(100))))) == {201}
    assert execute(dsn, "SELECT count(DISTINCT batch_id) FROM orders")[0][0] <= 3
    assert len(execute(dsn, "SELECT 1 FROM stock_record WHERE product_id = %s", (product,))) <= 3


def test_the_same_request_again_with_its_keys_gets_the_same_orders(service: Service, sandbox: Sandbox) -> None:
    product, scarce = sandbox.product(100), sandbox.product(0)
    wishes = [wish((product, n), key=f"bulk-{next(_customers)}") for n in range(1, 6)]
    wishes.append(wish((scarce, 1), key=f"bulk-{next(_customers)}"))
    first = results(place(service, *wishes))
    sandbox.restock(scarce, 5)
    again = results(place(service, *wishes))
    assert [result["status"] for result in first] == [201] * 5 + [400]
    assert again == [{**result, "replayed": True} for result in first]
    assert sandbox.stock(product) == 100 - 15
    single = service.place(
        wishes[0]["customer_id"], (product, 1), headers={"Idempotency-Key": wishes[0]["idempotency_key"]}
    )
    assert (single.body, single.headers["idempotent-replayed"]) == (first[0]["order"], "true")
    other = results(place(service, {**wishes[0], "customer_id": next(_customers)}, wish((product, 1))))
    assert [result["status"] for result in other] == [422, 201]
    assert other[0]["problem"]["code"] == "key_reused"


def test_sent_twice_at_once_with_its_keys_nothing_is_ordered_twice(start: Start, sandbox: Sandbox) -> None:
    replicas = [start(), start()]
    product = sandbox.product(100)
    wishes = [wish((product, 1), key=f"bulk-{next(_customers)}") for _ in range(30)]
    with ThreadPoolExecutor(4) as clients:
        replies = list(clients.map(lambda n: results(place(replicas[n % 2], *wishes)), range(4)))
    for n in range(30):
        told = [reply[n] for reply in replies]
        assert {result["status"] for result in told} <= {201, 409}, told
        assert all(result["retry_after_s"] == 1 for result in told if result["status"] == 409)
        assert len({result["order"]["id"] for result in told if result["status"] == 201}) == 1
    assert {result["status"] for result in results(place(replicas[0], *wishes))} == {201}
    assert sandbox.stock(product) == 70


def test_a_cart_that_is_named_twice_is_one_order(service: Service, sandbox: Sandbox) -> None:
    product, customer = sandbox.product(10), next(_customers)
    sandbox.fill_cart(customer, (product, 2))
    replies = results(place(service, *(wish(customer=customer) for _ in range(3))))
    assert [result["status"] for result in replies] == [201] * 3
    assert len({result["order"]["id"] for result in replies}) == 1
    assert sorted(result.get("replayed", False) for result in replies) == [False, True, True]
    assert sandbox.stock(product) == 8


def test_a_request_whose_replica_died_is_sent_again(start: Start, sandbox: Sandbox, dsn: str) -> None:
    """Half of the orders have one product, half another whose PUT takes long: the replica dies in between."""
    service = start()
    product, other = sandbox.product(100), sandbox.product(100)
    wishes = [wish(((product, other)[n % 2], 1), key=f"bulk-{next(_customers)}") for n in range(20)]
    sandbox.catalog_faults(slow_s=1.5)
    with ThreadPoolExecutor(1) as client:
        asked = client.submit(place, service, *wishes)
        wait_until(lambda: execute(dsn, "SELECT 1 FROM orders WHERE status = 'Pending'"), "an intent is durable")
        service.kill()
        with pytest.raises(Exception, match=r"(?i)connect|request|closed|error"):
            asked.result()
    sandbox.heal()
    execute(dsn, "UPDATE stock_claims SET lease_until = now(), lands_until = now() + interval '2 s'")
    execute(dsn, "UPDATE idempotency_keys SET created_at = created_at - interval '1 h' WHERE status IS NULL")
    second = start()

    def told() -> list[dict[str, Any]] | None:
        replies = results(place(second, *wishes))
        return replies if {result["status"] for result in replies} == {201} else None

    first = wait_until(told, "all of them are placed")
    assert len({result["order"]["id"] for result in first}) == 20
    wait_until(lambda: sandbox.stock(product) == sandbox.stock(other) == 90, "what the dead one took is back")


def test_an_unreachable_catalog_is_told_to_each(start: Start, sandbox: Sandbox) -> None:
    service = start(orders_request_deadline_s=2)
    sandbox.catalog_faults(error_rate=1)
    replies = results(place(service, *(wish((sandbox.product(5), 1)) for _ in range(3))))
    assert {result["status"] for result in replies} <= {500, 503}
    assert {result["problem"]["status"] for result in replies} <= {500, 503}


# Moving -----------------------------------------------------------------------------------------------------------


def test_each_is_moved_for_itself(service: Service, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    a, b, c, d = (placed(service, (product, 1)) for _ in range(4))
    service.move(c["id"], "Completed")
    reply = move(
        service,
        [
            {"id": a["id"], "status": "paid", "note": "In cash."},
            {"id": NOWHERE, "status": "Paid"},
            {"id": c["id"], "status": "Paid"},
            {"id": b["id"], "status": "Cancelled", "version": 1},
            {"id": d["id"].upper(), "status": "Paid", "version": 7},
        ],
    )
    assert statuses(reply) == [200, 404, 409, 200, 412]
    paid, nowhere, final, cancelled, old = results(reply)
    assert service.get(f"/orders/{a['id']}").body == paid["order"]
    assert [(e["type"], e["note"]) for e in events(service, a)] == [("placed", None), ("moved", "In cash.")]
    assert nowhere["problem"]["code"] == "order_not_found"
    assert (final["problem"]["code"], final["problem"]["allowed_statuses"]) == ("status_not_allowed", [])
    assert cancelled["order"]["status"] == "Cancelled"
    assert (old["problem"]["code"], old["problem"]["version"]) == ("version_changed", 1)
    assert service.get(f"/orders/{d['id']}").body == d
    wait_until(lambda: sandbox.stock(product) == 7, "the cancelled order's stock is back")
    again = move(service, [{"id": a["id"], "status": "Paid"}, {"id": b["id"], "status": "Cancelled"}])
    assert [result["order"]["version"] for result in results(again)] == [2, 2]
    assert len(events(service, a)) == 2


def test_all_or_nothing_leaves_nothing_where_one_is_refused(service: Service, sandbox: Sandbox, dsn: str) -> None:
    product = sandbox.product(10)
    orders = [placed(service, (product, 1)) for _ in range(4)]
    service.move(orders[2]["id"], "Shipped")
    wanted = [{"id": order["id"], "status": "Cancelled"} for order in orders]
    wanted.append({"id": NOWHERE, "status": "Paid"})
    before = contents(dsn)
    body = problem(move(service, wanted, "all_or_nothing"), 409, "batch_refused")
    assert [(e["pointer"], e["code"], e["id"]) for e in body["errors"]] == [
        ("#/orders/2", "status_not_allowed", orders[2]["id"]),
        ("#/orders/4", "order_not_found", NOWHERE),
    ]
    assert "Delivered" in body["errors"][0]["allowed_statuses"]
    assert contents(dsn) == before
    reply = move(service, [wanted[0], wanted[1], wanted[3]], "all_or_nothing")
    assert [result["order"]["status"] for result in results(reply)] == ["Cancelled"] * 3
    wait_until(lambda: sandbox.stock(product) == 9, "their stock is back")


def contents(dsn: str) -> dict[str, list[Any]]:
    tables = [name for (name,) in execute(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    return {table: sorted(execute(dsn, f"SELECT t::text FROM {table} t")) for table in tables}


@pytest.mark.parametrize("policy", ["each", "all_or_nothing"])
def test_a_thousand_orders_are_moved_at_once(service: Service, sandbox: Sandbox, dsn: str, policy: str) -> None:
    orders = many(service, sandbox, 1000)
    random.Random(5).shuffle(orders)
    reply = move(service, [{"id": order["id"], "status": "Confirmed"} for order in orders], policy)
    assert [result["order"]["id"] for result in results(reply)] == [order["id"] for order in orders]
    assert {(result["status"], result["order"]["status"]) for result in results(reply)} == {(200, "Confirmed")}
    assert execute(dsn, "SELECT status, version, count(*) FROM orders GROUP BY 1, 2") == [("Confirmed", 2, 1000)]
    moved = "SELECT number, count(*) FROM order_events GROUP BY 1 ORDER BY 1"
    assert execute(dsn, moved) == [(1, 1000), (2, 1000)]


@pytest.mark.parametrize("policy", ["each", "all_or_nothing"])
def test_two_batches_at_once_in_opposite_order_neither_block_nor_lose(
    start: Start, sandbox: Sandbox, dsn: str, policy: str
) -> None:
    replicas = [start(), start()]
    orders = many(replicas[0], sandbox, 210)  # more than are moved in one transaction
    before = deadlocks(dsn)

    def ask(n: int) -> Reply:
        wanted = [{"id": order["id"], "status": ("On Hold", "Ordered")[n // 2 % 2]} for order in orders]
        return move(replicas[n % 2], wanted[:: 1 if n % 2 else -1], policy)

    with ThreadPoolExecutor(8) as people:
        replies = list(people.map(ask, range(12)))
    assert {status for reply in replies for status in statuses(reply)} == {200}
    versions = dict(execute(dsn, "SELECT id::text, version FROM orders"))
    told: dict[str, set[int]] = {order_id: {1} for order_id in versions}
    for n, reply in enumerate(replies):
        for result in results(reply):
            assert result["order"]["status"] == ("On Hold", "Ordered")[n // 2 % 2]
            told[result["order"]["id"]].add(result["order"]["version"])
    for order_id, version in versions.items():
        assert told[order_id] == set(range(1, version + 1))  # each change is somebody's answer
    count = "SELECT order_id::text, count(*) FROM order_events GROUP BY 1"
    assert dict(execute(dsn, count)) == versions
    assert max(versions.values()) > 2
    assert deadlocks(dsn) == before


def deadlocks(dsn: str) -> int:
    execute(dsn, "SELECT pg_stat_clear_snapshot()")
    return int(execute(dsn, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0])


def test_where_it_is_required_a_move_without_version_is_428(start: Start, sandbox: Sandbox) -> None:
    service = start(orders_require_if_match=True)
    a, b = placed(service, (sandbox.product(5), 1)), placed(service, (sandbox.product(5), 1))
    wanted = [{"id": a["id"], "status": "Paid"}, {"id": b["id"], "status": "Paid", "version": 1}]
    assert problem(move(service, wanted, "all_or_nothing"), 409, "batch_refused")["errors"][0]["code"] == (
        "if_match_required"
    )
    assert statuses(move(service, wanted)) == [428, 200]


# What is refused before anything is done --------------------------------------------------------------------------


_ID = str(uuid4())

MALFORMED_PLACING = [
    ({}, "#/orders"),
    ({"orders": []}, "#/orders"),
    ({"orders": [wish((7, 1), customer=1)] * 101}, "#/orders"),
    ({"orders": [wish((7, 1), customer=1)], "error_policy": "all_or_nothing"}, "#/error_policy"),
    ({"orders": [{"items": [{"product_id": 7, "quantity": 1}]}]}, "#/orders/0/customer_id"),
    ({"orders": [wish((7, 1), customer=1), {"customer_id": 0}]}, "#/orders/1/customer_id"),
    ({"orders": [wish((7, 1), customer=1), wish((7, 0), customer=1)]}, "#/orders/1/items/0/quantity"),
    ({"orders": [{**wish((7, 1), customer=1), "color": 1}]}, "#/orders/0/color"),
    ({"orders": [wish((7, 1), customer=1, key="a b")]}, "#/orders/0/idempotency_key"),
    ({"orders": [wish((7, 1), customer=1, key="x" * 256)]}, "#/orders/0/idempotency_key"),
    ({"orders": [wish((7, 1), customer=n, key=f"k{n % 2}") for n in (1, 2, 3)]}, "#/orders/2/idempotency_key"),
]

MALFORMED_MOVING = [
    ({"orders": []}, "#/orders"),
    ({"orders": [{"id": str(uuid4()), "status": "Paid"} for _ in range(1001)]}, "#/orders"),
    ({"orders": [{"id": _ID, "status": "Paid"}], "error_policy": "some"}, "#/error_policy"),
    ({"orders": [{"id": "7", "status": "Paid"}]}, "#/orders/0/id"),
    ({"orders": [{"id": _ID, "status": "Paid"}, {"id": NOWHERE, "status": "teleported"}]}, "#/orders/1/status"),
    ({"orders": [{"id": _ID, "status": "Paid", "version": 0}]}, "#/orders/0/version"),
    ({"orders": [{"id": _ID, "status": "Paid", "note": ""}]}, "#/orders/0/note"),
    ({"orders": [{"id": _ID, "status": "Paid"}, {"id": _ID.upper(), "status": "Shipped"}]}, "#/orders/1/id"),
]


def test_what_is_malformed_is_422_says_where_and_does_nothing(service: Service, sandbox: Sandbox, dsn: str) -> None:
    before = sandbox.stock(7)
    for method, table in (("POST", MALFORMED_PLACING), ("PUT", MALFORMED_MOVING)):
        for body, pointer in table:
            reply = service.http.send(method, f"{service.url}/orders:batch", body)
            assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == pointer, (method, body)
    assert execute(dsn, "SELECT 1 FROM orders") == []
    assert sandbox.stock(7) == before


def test_headers_for_one_order_are_refused_and_so_are_parameters(service: Service) -> None:
    one = {"orders": [wish((7, 1))]}
    url = f"{service.url}/orders:batch"
    reply = service.http.post(url, one, headers={"Idempotency-Key": "k"})
    assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == "header/Idempotency-Key"
    moved = {"orders": [{"id": NOWHERE, "status": "Paid"}]}
    reply = service.http.put(url, moved, headers={"If-Match": '"1"'})
    assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == "header/If-Match"
    reply = service.http.post(f"{url}?policy=each", one)
    assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == "query/policy"
    assert service.http.send("DELETE", url).headers["allow"] == "OPTIONS, POST, PUT"


def test_one_request_has_at_most_two_thousand_lines(service: Service) -> None:
    def order(first: int, count: int) -> dict[str, Any]:
        return {"customer_id": 1, "items": [{"product_id": first + n, "quantity": 1} for n in range(count)]}

    orders = [order(1, 500), order(501, 500), order(1001, 500), order(1501, 499), order(2001, 2)]
    reply = service.http.post(f"{service.url}/orders:batch", {"orders": orders})
    assert (reply.status, reply.body["errors"][0]["pointer"]) == (422, "#/orders/4/items")
    assert "these are 2001" in reply.body["detail"]
