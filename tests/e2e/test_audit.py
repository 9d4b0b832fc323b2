"""`GET /audit`: who did what. And moves of many orders, which are in it."""

from collections import Counter
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Reply, Sandbox
from tests.e2e.conftest import Service
from tests.e2e.test_bulk import many


def move(service: Service, orders: list[dict[str, Any]], query: str = "", **body: Any) -> tuple[str, Reply]:
    """The request's ID, and its answer."""
    request_id = uuid4().hex
    headers = {"X-Request-ID": request_id, "X-Actor": "anna"}
    reply = service.http.put(f"{service.url}/orders:batch{query}", {"orders": orders, **body}, headers=headers)
    return request_id, reply


def audited(service: Service, request_id: str) -> list[dict[str, Any]]:
    page = service.get("/audit?action=orders_moved&limit=1000").body
    return [entry for entry in page["entries"] if entry["request_id"] == request_id]


def test_moves_of_many_orders_are_in_the_audit(service: Service, sandbox: Sandbox) -> None:
    orders = many(service, sandbox, 25)
    wanted = [{"id": order["id"], "status": "Paid" if n < 15 else "Cancelled"} for n, order in enumerate(orders)]
    request_id, reply = move(service, [*wanted, {"id": str(uuid4()), "status": "Paid"}])
    assert Counter(result["status"] for result in reply.body["results"]) == {200: 25, 404: 1}
    (entry,) = audited(service, request_id)
    assert (entry["actor"], entry["address"], entry["subject"]) == ("local/anna", "127.0.0.1", None)
    assert entry["before"] is None
    assert entry["after"]["count"] == 25
    assert entry["after"]["statuses"] == {"Cancelled": 10, "Paid": 15}
    assert len(entry["after"]["order_ids"]) == 10
    assert {order["id"] for order in orders}.issuperset(entry["after"]["order_ids"])
    request_id, _ = move(service, wanted[:3])  # they are Paid already
    assert audited(service, request_id) == []


def test_each_transaction_of_many_moves_has_its_entry(service: Service, sandbox: Sandbox) -> None:
    wanted = [{"id": order["id"], "status": "Paid"} for order in many(service, sandbox, 230)]
    request_id, _ = move(service, wanted)
    assert sorted(entry["after"]["count"] for entry in audited(service, request_id)) == [30, 200]
    wanted = [{**one, "status": "Shipped"} for one in wanted]
    request_id, _ = move(service, wanted, error_policy="all_or_nothing")
    assert [entry["after"]["count"] for entry in audited(service, request_id)] == [230]


def test_what_was_refused_and_what_was_tried_are_not_in_the_audit(service: Service, sandbox: Sandbox) -> None:
    wanted = [{"id": order["id"], "status": "Paid"} for order in many(service, sandbox, 2)]
    request_id, reply = move(service, wanted, "?dry_run=true")
    assert reply.status == 200
    assert audited(service, request_id) == []
    assert service.move(wanted[1]["id"], "Cancelled").status == 200
    request_id, reply = move(service, wanted, error_policy="all_or_nothing")
    assert reply.status == 409
    assert audited(service, request_id) == []


def test_the_audit_is_read_page_by_page(service: Service, sandbox: Sandbox) -> None:
    orders = many(service, sandbox, 3)
    for order in orders:
        move(service, [{"id": order["id"], "status": "Paid"}])
    first = service.get("/audit?limit=2&actor=local/anna&action=orders_moved").body
    assert [entry["after"]["order_ids"] for entry in first["entries"]] == [[orders[2]["id"]], [orders[1]["id"]]]
    assert first["next"] == f"/audit?limit=2&after={first['entries'][1]['id']}&action=orders_moved&actor=local%2Fanna"
    second = service.get(first["next"]).body
    assert second["entries"][0]["after"]["order_ids"] == [orders[0]["id"]]
    assert service.get("/audit?actor=nobody").body == {"entries": [], "next": None}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "after=0", "after=x", "action=", "colour=red", "limit=1&limit=2"]
)
def test_a_malformed_question_is_refused(service: Service, query: str) -> None:
    assert service.get(f"/audit?{query}").status == 422
