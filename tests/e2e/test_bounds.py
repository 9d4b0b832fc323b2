"""What is kept of an order, and what is sent of many, is bounded: by what it is when it is stored."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from orders.finding.lists_sql import MAX_PAGE_BYTES
from orders.order.model import MAX_LINES
from orders.order.sizes import MAX_ATTACHED_BYTES, MAX_NAMES_BYTES
from tests.conftest import Sandbox, execute, wait_until
from tests.e2e.conftest import Service
from tests.e2e.test_contract import problem
from tests.e2e.test_details import patch, place
from tests.e2e.test_exports import body_of

_customers = itertools.count(int(time.time()) + 70_000_000)
EXPLODES = {"a": [1e308] * 1100}
"""8 kB as it is sent, 364 kB as jsonb writes it."""


def placed(service: Service, sandbox: Sandbox, **details: Any) -> dict[str, Any]:
    reply = place(service, next(_customers), sandbox.product(9), **details)
    assert reply.status == 201, reply
    return dict(reply.body)


def put_in_secret(dsn: str, order_id: str, **columns: Any) -> None:
    """Write into an order's row what no way leads to any more, as earlier versions have left it behind."""
    names = ", ".join(f"{name} = %({name})s" for name in columns)
    statement = f"SET session_replication_role = replica; UPDATE orders SET {names} WHERE id = %(id)s"
    execute(dsn, f"{statement}; RESET session_replication_role", {"id": order_id, **columns})


# What is attached to an order ------------------------------------------------------------------------------------


@pytest.mark.parametrize("details", [{"metadata": EXPLODES}, {"metadata": {"a": [5e-324] * 300}}])
def test_numbers_are_measured_as_they_are_stored(service: Service, sandbox: Sandbox, details: Any) -> None:
    order = placed(service, sandbox)
    batch = {"orders": [{"customer_id": 1, "items": [{"product_id": sandbox.product(1), "quantity": 1}], **details}]}
    for reply, pointer in (
        (patch(service, order["id"], details), "#/metadata"),
        (place(service, 1, sandbox.product(1), **details), "#/metadata"),
        (service.http.post(f"{service.url}/orders:batch", batch), "#/orders/0/metadata"),
    ):
        error = problem(reply, 422, "invalid_request")["errors"][0]
        assert error["pointer"] == pointer
        assert "8192 bytes" in error["message"]


def test_it_is_what_comes_of_a_patch_that_is_measured(service: Service, sandbox: Sandbox) -> None:
    order = placed(service, sandbox, metadata={"a": [1e308] * 20})
    refused = problem(patch(service, order["id"], {"metadata": {"b": [1e308] * 20}}), 422, "invalid_request")
    assert refused["errors"][0]["pointer"] == "#/metadata"
    assert patch(service, order["id"], {"metadata": {"a": None, "b": [1e308] * 20}}).status == 200
    assert patch(service, order["id"], {"notes": {"public": "x"}}).body["metadata"] == {"b": [1e308] * 20}


def test_all_that_is_attached_has_a_bound_together(service: Service, sandbox: Sandbox) -> None:
    largest = {"metadata": {"a": ["x" * 8000]}, "notes": {"public": "x" * 4000, "private": "y" * 4000}}
    order = placed(service, sandbox, **largest)
    assert {name: order[name] for name in largest} == largest
    too_large = {"notes": {"public": "\U0001f600" * 4000, "private": "☎" * 4000}}
    batch = {"orders": [{"customer_id": 1, "items": [{"product_id": 1, "quantity": 1}], **too_large}]}
    for reply, pointer in (
        (patch(service, order["id"], too_large), "#"),
        (place(service, 1, sandbox.product(1), **too_large), "#"),
        (service.http.post(f"{service.url}/orders:batch", batch), "#/orders/0"),
    ):
        error = problem(reply, 422, "invalid_request")["errors"][0]
        assert error["pointer"] == pointer
        assert f"{MAX_ATTACHED_BYTES} bytes" in error["message"]


def test_an_order_that_is_too_large_from_earlier_on_can_still_be_described(
    service: Service, sandbox: Sandbox, dsn: str
) -> None:
    order = placed(service, sandbox)
    put_in_secret(dsn, order["id"], metadata=json.dumps(EXPLODES), public_note="x" * 50_000)
    assert patch(service, order["id"], {"external_reference": f"big-{order['number']}"}).status == 200
    assert service.move(order["id"], "Paid").status == 200
    problem(patch(service, order["id"], {"metadata": {"b": 1}}), 422, "invalid_request")
    problem(patch(service, order["id"], {"notes": {"private": "more"}}), 422, "invalid_request")
    assert patch(service, order["id"], {"metadata": {"a": None}}).body["metadata"] == {}
    assert patch(service, order["id"], {"notes": {"public": "short"}}).status == 200


def test_an_order_of_the_most_lines_and_the_longest_names_fits(service: Service, sandbox: Sandbox) -> None:
    first = next(_customers) * 1000
    for n in range(MAX_LINES):
        sandbox.product(5, id=first + n, name="☎ " * 5000)
    items = [{"product_id": first + n, "quantity": 1} for n in range(MAX_LINES)]
    reply = service.http.post(f"{service.url}/orders/{next(_customers)}", {"items": items})
    assert reply.status == 201
    names = {item["name"] for item in reply.body["items"]}
    assert all(name.startswith("☎ ☎ ☎ ") and name.endswith("…") for name in names)
    document = json.dumps(reply.body, ensure_ascii=False, separators=(", ", " : ")).encode()
    assert len(document) < MAX_NAMES_BYTES + 220 * MAX_LINES + 1000
    assert sandbox.fields(first)["name"] == "☎ " * 5000  # the catalog keeps its own


# Lists -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def heavy(service: Service, sandbox: Sandbox, dsn: str) -> Iterator[list[str]]:
    """25 orders of 364 kB, and one of more than a page."""
    product = sandbox.product(1000)
    ids = [service.place(77, (product, 1)).body["id"] for _ in range(26)]
    for order_id in ids:
        put_in_secret(dsn, order_id, metadata=json.dumps(EXPLODES))
    put_in_secret(dsn, ids[13], public_note="x" * (MAX_PAGE_BYTES + 1))
    yield ids
    execute(dsn, "TRUNCATE orders CASCADE")


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "-total", "number", "-updated_at"])
def test_a_page_ends_by_bytes_and_no_order_is_lost(service: Service, heavy: list[str], sort: str) -> None:
    sizes, seen = [], []
    url = f"/orders?customer_id=77&limit=1000&sort={sort}"
    while url:
        page = service.get(url).body
        sizes.append([len(json.dumps(order, separators=(", ", " : "))) for order in page["orders"]])
        seen += [order["id"] for order in page["orders"]]
        url = page["next"]
    assert sorted(seen) == sorted(heavy)
    assert all(sum(size) <= MAX_PAGE_BYTES or len(size) == 1 for size in sizes), sizes
    assert len(sizes) <= 6, sizes


def test_exports_have_all_of_it(service: Service, heavy: list[str]) -> None:
    for path in ("/orders.ndjson", "/orders.csv"):
        lines = body_of(service, f"{path}?customer_id=77").decode().splitlines()
        assert [order_id for order_id in heavy if any(order_id in line for line in lines)] == heavy
        assert len(lines) == len(heavy) + (path == "/orders.csv")


def test_many_results_show_only_some_of_their_orders_whole(service: Service, sandbox: Sandbox, dsn: str) -> None:
    ids = [service.place(78, (sandbox.product(5), 1)).body["id"] for _ in range(8)]
    for order_id in ids:
        put_in_secret(dsn, order_id, public_note="x" * (MAX_PAGE_BYTES // 4))
    url = f"{service.url}/orders:batch"
    shown: list[tuple[str, Any]] = []
    for status, policy, query in (
        ("Confirmed", "each", "?dry_run=true"),
        ("Confirmed", "each", ""),
        ("Paid", "all_or_nothing", ""),
    ):
        body = {"orders": [{"id": i, "status": status} for i in ids], "error_policy": policy}
        results = service.http.put(url + query, body).body["results"]
        whole = [result["order"] for result in results if "order" in result]
        short = [result["order_in_short"] for result in results if "order_in_short" in result]
        assert (len(whole), len(short)) == (3, 5)
        assert {result["status"] for result in results} == {200}
        assert [order["id"] for order in (*whole, *short)] == ids
        assert {order["status"] for order in (*whole, *short)} == {status}
        shown.append((policy, {order["version"] for order in (*whole, *short)}))
    assert [versions for _, versions in shown] == [{2}, {2}, {3}]
    assert service.get(f"/orders/{ids[-1]}").body["version"] == 3


# Events and the past ----------------------------------------------------------------------------------------------

NOTE_EACH = """
DO $$ BEGIN
    FOR n IN 2..1001 LOOP
        INSERT INTO order_events (order_id, number, type, before, after, actor)
            SELECT id, n, 'described', jsonb_build_object('notes', jsonb_build_object('public', public_note,
                       'private', private_note)), '{}', 'test' FROM orders WHERE id = '%(id)s';
        UPDATE orders SET version = n, public_note = 'note ' || n, updated_at = clock_timestamp() WHERE id = '%(id)s';
    END LOOP;
END $$
"""


def test_an_order_with_a_thousand_events_is_paged_and_looked_back_at(
    service: Service, sandbox: Sandbox, dsn: str
) -> None:
    order = placed(service, sandbox)
    execute(dsn, NOTE_EACH % order)
    address = f"/orders/{order['id']}"
    pages, url = [], f"{address}/events"
    while url:
        page = service.get(url).body
        pages.append([event["number"] for event in page["events"]])
        url = page["next"]
    assert list(itertools.chain(*pages)) == list(range(1, 1002))
    assert [len(page) for page in pages] == [100] * 10 + [1]
    last = service.get(f"{address}/events?after=999&limit=1000").body
    assert [event["number"] for event in last["events"]] == [1000, 1001]
    assert last["next"] is None
    assert service.get(f"{address}/events?after=5000").body == {"events": [], "next": None}
    for query, pointer in (("limit=0", "limit"), ("limit=1001", "limit"), ("after=-1", "after"), ("x=1", "x")):
        errors = problem(service.get(f"{address}/events?{query}"), 422, "invalid_request")["errors"]
        assert errors[0]["pointer"] == f"query/{pointer}"
    for version in (1, 2, 500, 1000, 1001):
        was = service.get(f"{address}?at={version}").body
        assert (was["version"], was["notes"]["public"]) == (version, f"note {version}" if version > 1 else None)
    # It can't be described any more, but goes on living.
    problem(patch(service, order["id"], {"notes": {"public": "one more"}}), 409, "described_too_often")
    assert patch(service, order["id"], {"notes": {"public": "note 1001"}}).status == 200  # which changes nothing
    assert service.move(order["id"], "Paid").body["version"] == 1002
    problem(patch(service, order["id"], {"notes": {"public": "one more"}}), 409, "described_too_often")


def page_of(service: Service, url: str) -> dict[str, Any]:
    """A page. A busy machine may need longer for it than the service gives it."""
    return dict(wait_until(lambda: (reply := service.get(url)).status == 200 and reply.body, f"{url} is answered"))


def test_a_page_of_events_ends_by_bytes(service: Service, sandbox: Sandbox, dsn: str) -> None:
    order = placed(service, sandbox)
    execute(
        dsn,
        """INSERT INTO order_events (order_id, number, type, before, actor)
           SELECT %s, n, 'described', jsonb_build_object('notes', repeat('x', n * 300000)), 'test'
           FROM generate_series(2, 20) n""",
        (order["id"],),
    )
    sizes, numbers = [], []
    url = f"/orders/{order['id']}/events"
    while url:
        page = page_of(service, url)
        sizes.append(sum(len(json.dumps(event)) for event in page["events"]))
        numbers.append([event["number"] for event in page["events"]])
        url = page["next"]
    assert list(itertools.chain(*numbers)) == list(range(1, 21))
    assert all(size <= MAX_PAGE_BYTES or len(page) == 1 for size, page in zip(sizes, numbers, strict=True))
    assert any(len(page) > 1 for page in numbers)
    assert any(len(page) == 1 for page in numbers)


def test_events_keep_of_long_notes_what_they_were_and_how_they_begin(
    service: Service, sandbox: Sandbox, dsn: str
) -> None:
    first = {"public": "a" * 4000, "private": "short"}
    order = placed(service, sandbox, notes=first)
    second = {"public": "b" * 4000, "private": "c" * 3000}
    assert patch(service, order["id"], {"notes": second}).body["notes"] == second
    third = {"public": None, "private": "d" * 200}
    patch(service, order["id"], {"notes": third})
    address = f"/orders/{order['id']}"
    _, event, last = service.get(f"{address}/events").body["events"]
    assert event["before"] == {"notes": first}
    assert event["after"] == {"notes": {"public": "b" * 200 + "…", "private": "c" * 200 + "…"}}
    assert event["details"] == {
        "cut": [
            {"pointer": "/after/notes/public", "characters": 4000},
            {"pointer": "/after/notes/private", "characters": 3000},
        ]
    }
    assert (last["before"], last["after"], last["details"]) == ({"notes": second}, {"notes": third}, None)
    for version, notes in enumerate((first, second, third), 1):
        assert service.get(f"{address}?at={version}").body["notes"] == notes


# References -------------------------------------------------------------------------------------------------------


def test_a_reference_that_is_taken_tells_its_order_to_nobody_else(service: Service, sandbox: Sandbox) -> None:
    customer, stranger = next(_customers), next(_customers)
    product, reference = sandbox.product(9), f"own-{next(_customers)}"
    order = place(service, customer, product, external_reference=reference).body
    own, other = (place(service, who, product, external_reference=reference) for who in (customer, stranger))
    assert problem(own, 409, "external_reference_taken")["order_id"] == order["id"]
    assert "order_id" not in problem(other, 409, "external_reference_taken")
    assert order["id"] not in json.dumps(other.body)
    own, other = (
        patch(service, place(service, who, product).body["id"], {"external_reference": reference})
        for who in (customer, stranger)
    )
    assert problem(own, 409, "external_reference_taken")["order_id"] == order["id"]
    assert "order_id" not in problem(other, 409, "external_reference_taken")
    assert order["id"] not in json.dumps(other.body)


def test_references_that_look_alike_are_one(service: Service, sandbox: Sandbox, dsn: str) -> None:
    customer, number = next(_customers), next(_customers)
    composed, decomposed = f"Caf\u00e9-{number}", f"Cafe\u0301-{number}"
    order = place(service, customer, sandbox.product(9), external_reference=decomposed).body
    assert order["external_reference"] == composed
    problem(place(service, customer, sandbox.product(9), external_reference=composed), 409, "external_reference_taken")
    for spelling in ("Caf%C3%A9", "Cafe%CC%81"):
        assert service.get(f"/orders?external_reference={spelling}-{number}").body["orders"] == [order]
    put_in_secret(dsn, order["id"], external_reference=decomposed)  # from before they were normalised
    assert len(service.get(f"/orders?external_reference=Cafe%CC%81-{number}").body["orders"]) == 1


@pytest.mark.parametrize(
    "details",
    [
        {"external_reference": "a\u200bb"},
        {"external_reference": "a\n"},
        {"external_reference": "\U000e0041"},
        {"notes": {"public": "\x1b[31m"}},
        {"notes": {"private": "\u202eabc"}},
    ],
)
def test_texts_with_what_nobody_sees_are_422(service: Service, sandbox: Sandbox, details: Any) -> None:
    order = placed(service, sandbox)
    for reply in (patch(service, order["id"], details), place(service, 1, sandbox.product(1), **details)):
        assert "U+" in problem(reply, 422, "invalid_request")["errors"][0]["message"]
    note = {"status": "Paid", "note": "\u2066x"}
    problem(service.http.put(f"{service.url}/orders/{order['id']}", note), 422, "invalid_request")
