"""What messages say: the event, and the order as of it, in the same bytes whenever they are built."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from orders.order.statuses import load_workflow
from orders.postgres.database import Connection, connect
from orders.webhooks.body import MAX_BODY_BYTES
from orders.webhooks.body_sql import bodies
from orders.webhooks.model import Message, Payload
from tests.conftest import ask

WORKFLOW = load_workflow(None)
SECRET = "only for the staff"


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(dsn)) as connection:
        yield connection


def place(connection: Connection, lines: int = 1, name: str = "Äpfel") -> UUID:
    order_id = uuid4()
    ask(
        connection,
        """INSERT INTO orders (id, customer_id, status, total, placed_at, version, channel, metadata, private_note)
           VALUES (%s, 42, 'Ordered', 30, now(), 1, 'web', '{"n": 1.50, "z": {"a": [1e3]}}', %s)""",
        (str(order_id), SECRET),
    )
    ask(
        connection,
        """INSERT INTO order_items (order_id, product_id, name, quantity, unit_price)
           SELECT %s, n, %s, 3, 10 FROM generate_series(1, %s) n""",
        (str(order_id), name, lines),
    )
    happen(connection, order_id, 1, "placed", {"status": "Pending"}, {"status": "Ordered"})
    return order_id


def happen(connection: Connection, order_id: UUID, number: int, kind: str, before: Any, after: Any) -> None:
    """An event, and the version of the order that comes with it, as the service writes them."""
    ask(
        connection,
        """WITH event AS (
               INSERT INTO order_events (order_id, number, type, actor, reason, before, after)
               VALUES (%(id)s, %(number)s, %(type)s, 'key:shop', 'because', %(before)s, %(after)s) RETURNING at)
           UPDATE orders SET version = %(number)s, updated_at = event.at, status = coalesce(%(status)s, status),
                             public_note = coalesce(%(public)s, public_note)
           FROM event WHERE id = %(id)s AND version <> %(number)s""",
        {
            "id": str(order_id),
            "number": number,
            "type": kind,
            "before": json.dumps(before),
            "after": json.dumps(after),
            "status": after.get("status"),
            "public": after.get("notes", {}).get("public"),
        },
    )


def message(order_id: UUID, number: int, delivery_id: int = 1) -> Message:
    return Message(delivery_id, uuid4(), "order.x", 1, datetime.now(UTC), 100 + number, order_id, number)


def body(connection: Connection, order_id: UUID, number: int, payload: Payload = Payload.FULL) -> bytes:
    return bodies(connection, WORKFLOW, payload, [message(order_id, number)])[1]


def test_a_message_has_the_event_and_the_order_as_of_it(connection: Connection) -> None:
    order_id = place(connection)
    happen(connection, order_id, 2, "moved", {"status": "Ordered"}, {"status": "Shipped"})
    found = json.loads(body(connection, order_id, 1))
    data, order = found["data"], found["data"]["order"]
    assert list(found) == ["type", "timestamp", "data"]
    assert found["type"] == "order.placed"
    assert list(data) == [
        *("position", "order_id", "number", "order_url", "customer_id", "channel", "actor", "reason"),
        *("before", "after", "details", "order"),
    ]  # fmt: skip
    assert data["order_url"] == f"/orders/{order_id}?at=1"
    assert (data["position"], data["number"], data["customer_id"], data["channel"]) == (101, 1, 42, "web")
    assert (data["before"], data["after"]) == ({"status": "Pending"}, {"status": "Ordered"})
    assert (order["status"], order["version"], order["updated_at"]) == ("Ordered", 1, found["timestamp"])
    assert order["items"][0]["name"] == "Äpfel"


def test_the_bytes_are_the_same_whatever_happens_to_the_order_later(connection: Connection) -> None:
    order_id = place(connection, lines=3)
    kept: dict[int, bytes] = {1: body(connection, order_id, 1)}
    notes: list[str | None] = [None, "first", "second"]
    for number in range(2, 8):
        if number % 2:
            happen(connection, order_id, number, "moved", {"status": "Ordered"}, {"status": "Ordered"})
        else:
            was, now = notes[number // 2 - 1], notes[number // 2] if number < 6 else "third"
            change = [{"notes": {"public": text, "private": SECRET}} for text in (was, now)]
            happen(connection, order_id, number, "described", *change)
        kept[number] = body(connection, order_id, number)
        for earlier, there in kept.items():
            assert body(connection, order_id, earlier) == there
    together = bodies(connection, WORKFLOW, Payload.FULL, [message(order_id, n, n) for n in kept])
    assert together == kept


def test_private_notes_are_never_sent(connection: Connection) -> None:
    order_id = place(connection)
    notes = [{"notes": {"public": text, "private": f"{SECRET} {text}"}} for text in ("a", "b")]
    happen(connection, order_id, 2, "described", *notes)
    for number in (1, 2):
        for payload in Payload:
            assert SECRET.encode() not in body(connection, order_id, number, payload)
    data = json.loads(body(connection, order_id, 2))["data"]
    assert data["after"]["notes"] == {"public": "b", "private": None}
    assert data["order"]["notes"] == {"public": "b", "private": None}


def test_thin_and_too_large_messages_say_where_the_order_is(connection: Connection) -> None:
    small, large = place(connection), place(connection, lines=400, name="x" * 100)
    thin = json.loads(body(connection, small, 1, Payload.THIN))["data"]
    assert thin["order"] is None
    assert json.loads(body(connection, small, 1))["data"] == thin | {
        "order": json.loads(body(connection, small, 1))["data"]["order"]
    }
    sent = body(connection, large, 1)
    assert json.loads(sent)["data"]["order"] is None
    assert len(sent) < MAX_BODY_BYTES
    assert json.loads(sent)["data"]["order_url"] == f"/orders/{large}?at=1"


def test_the_largest_order_that_fits_is_sent(connection: Connection) -> None:
    sizes = set()
    for lines in range(250, 430, 5):
        order_id = place(connection, lines=lines, name="y" * 50)
        sent = body(connection, order_id, 1)
        has_order = json.loads(sent)["data"]["order"] is not None
        assert len(sent) <= MAX_BODY_BYTES
        sizes.add(has_order)
    assert sizes == {True, False}


def test_a_message_whose_event_is_gone_is_left_out(connection: Connection) -> None:
    order_id = place(connection)
    assert bodies(connection, WORKFLOW, Payload.FULL, [message(order_id, 9), message(uuid4(), 1, 2)]) == {}


def test_a_notice_says_what_it_was_given(connection: Connection) -> None:
    at = datetime(2026, 11, 28, 1, 2, 3, 4, tzinfo=UTC)
    notice = Message(5, uuid4(), "webhook.test", 1, at, notice='{"a": "ä"}')
    found = bodies(connection, WORKFLOW, Payload.FULL, [notice])
    assert found == {5: '{"type":"webhook.test","timestamp":"2026-11-28T01:02:03.000004Z","data":{"a":"ä"}}'.encode()}
