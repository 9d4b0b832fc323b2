"""The feed over HTTP: pages, long polls, filters, several replicas, a shutdown; and `orders events`."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from tests.conftest import ORDERS, Http, Reply, Sandbox, execute, wait_until
from tests.e2e.conftest import Service, Start
from tests.e2e.test_contract import problem
from tests.e2e.test_life import events as history
from tests.e2e.test_life import placed


def head(service: Service) -> int:
    """The end of the feed, once every event is in it."""
    reply = wait_until(lambda: (r := service.get("/events/head")).body["lag_s"] == 0 and r, "all have a position")
    return int(reply.body["head"])


def follow(service: Service, after: int, count: int, more: str = "") -> list[dict[str, Any]]:
    """The next events of the feed, page after page; a failed test if they don't come."""
    found: list[dict[str, Any]] = []
    address = f"/events?after={after}&limit=7&wait=20{more}"
    give_up_at = time.monotonic() + 60
    while len(found) < count and time.monotonic() < give_up_at:
        reply = service.get(address)
        assert reply.status == 200, reply
        found += reply.body["events"]
        address = reply.body["next"]
    assert len(found) == count, found
    return found


def unmarked(address: str) -> str:
    """The address of a next page without the mark of its event."""
    return re.sub("&mark=[0-9a-f]{8}", "", address)


def wait_for_a_place(service: Service, address: str) -> Reply:
    """The answer of a long poll that asks again as long as all places are taken."""
    reply: Reply = wait_until(lambda: (r := service.get(address)).status != 503 and r, "a place is free")
    return reply


def are_all_waiting(service: Service, begin: int) -> Reply:
    """The refusal, once all places are taken."""
    address = f"/events?after={begin}&wait=0.01"
    reply: Reply = wait_until(lambda: (r := service.get(address)).status == 503 and r, "all places are taken")
    return reply


def test_each_event_of_each_order_is_in_the_feed_once_and_in_its_orders_order(
    service: Service, sandbox: Sandbox
) -> None:
    begin = head(service)
    product = sandbox.product(100)
    orders = [placed(service, (product, 1)) for _ in range(5)]
    for status in ("Paid", "Shipped"):
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda order, status=status: service.move(order["id"], status), orders))
    found = follow(service, begin, 15)
    assert [event["position"] for event in found] == list(range(begin + 1, begin + 16))
    for order in orders:
        mine = [event for event in found if event["order_id"] == order["id"]]
        assert [event["number"] for event in mine] == [1, 2, 3]
        assert [event["type"] for event in mine] == ["order.placed", "order.moved", "order.moved"]
        for event, written in zip(mine, history(service, order), strict=True):
            assert event["id"] == f"{order['id']}-{event['number']}"
            assert event["customer_id"] == order["customer_id"]
            shared = written.keys() - {"type"}
            assert {name: event[name] for name in shared} == {name: written[name] for name in shared}


def test_a_long_poll_is_answered_when_something_happens(service: Service, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    begin = head(service)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(service.get, f"/events?after={begin}&wait=20") for _ in range(20)]
        page = service.get(f"/events?after={begin}").body
        assert (page["events"], page["head"]) == ([], begin)
        order = placed(service, (product, 1))
        for reply in waiting:
            (event,) = reply.result().body["events"]
            assert event["order_id"] == order["id"]
            assert unmarked(reply.result().body["next"]) == f"/events?after={begin + 1}&wait=20.0"


def test_a_long_poll_that_nothing_happens_to_ends_with_an_empty_page(service: Service) -> None:
    begin = head(service)
    reply = service.get(f"/events?after={begin}&wait=0.2")
    assert (reply.status, reply.body["events"], reply.body["head"]) == (200, [], begin)


def test_waiting_requests_hold_up_nobody(service: Service, sandbox: Sandbox) -> None:
    """More of them than there are threads or connections to the database."""
    product = sandbox.product(10)
    begin = head(service)
    with ThreadPoolExecutor(60) as pool:
        cancelled = f"/events?after={begin}&types=order.cancelled&wait=20"
        waiting = [pool.submit(service.get, f"{cancelled}&limit={n + 1}") for n in range(60)]
        order = placed(service, (product, 1))
        assert service.get(f"/orders/{order['id']}").status == 200
        assert service.get("/orders?limit=1").status == 200
        follow(service, begin, 1)
        assert service.http.post(f"{service.url}/orders/{order['id']}/cancel", {"reason": "staff"}).status == 200
        assert {event["type"] for reply in waiting for event in reply.result().body["events"]} == {"order.cancelled"}


def test_a_page_has_the_types_that_are_asked_for(service: Service, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    begin = head(service)
    order = placed(service, (product, 1))
    service.move(order["id"], "Paid")
    assert service.http.post(f"{service.url}/orders/{order['id']}/cancel", {"reason": "staff"}).status == 200
    found = {
        types: [e["type"] for e in service.get(f"/events?after={begin}&types={types}").body["events"]]
        for types in ("order.placed", "order.moved,order.cancelled", "order.*", "*")
        if head(service) >= begin + 3
    }
    assert found == {
        "order.placed": ["order.placed"],
        "order.moved,order.cancelled": ["order.moved", "order.cancelled"],
        "order.*": ["order.placed", "order.moved", "order.cancelled"],
        "*": ["order.placed", "order.moved", "order.cancelled"],
    }
    page = service.get(f"/events?after={begin}&types=order.returned").body
    assert (page["events"], page["head"]) == ([], begin + 3)
    assert unmarked(page["next"]) == f"/events?after={begin + 3}&types=order.returned"
    mine = service.get(f"/events?after={begin}&order_id={order['id']}&limit=1").body
    assert [event["number"] for event in mine["events"]] == [1]
    assert unmarked(mine["next"]) == f"/events?after={begin + 1}&limit=1&order_id={order['id']}"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("after=-1", "query/after"),
        ("after=x", "query/after"),
        ("after=9223372036854775808", "query/after"),
        ("limit=0", "query/limit"),
        ("limit=1001", "query/limit"),
        ("wait=26", "query/wait"),
        ("wait=nan", "query/wait"),
        ("types=order.sold", "query/types"),
        ("types=", "query/types"),
        ("order_id=42", "query/order_id"),
        ("channel=A%20B", "query/channel"),
        ("colour=red", "query/colour"),
        ("after=1&after=2", "query/after"),
    ],
)
def test_a_malformed_question_is_refused(service: Service, query: str, pointer: str) -> None:
    error = problem(service.get(f"/events?{query}"), 422, "invalid_request")
    assert error["errors"][0]["pointer"] == pointer


def test_a_position_that_the_feed_does_not_have_is_refused(service: Service) -> None:
    """The database was restored to an earlier time, or it is another one: an honest stop instead of silence."""
    end = head(service)
    for more in ("", "&wait=20"):
        error = problem(service.get(f"/events?after={end + 1}{more}"), 409, "position_ahead")
        assert error["head"] == end


def test_a_position_that_another_event_has_now_is_refused(start: Start, sandbox: Sandbox, dsn: str) -> None:
    """A standby was promoted that had not received the last commits, and new orders took the positions."""
    service = start()
    product = sandbox.product(9)
    begin = head(service)
    for _ in range(2):
        placed(service, (product, 1))
    address = service.get(f"/events?after={begin}&limit={head(service) - begin}").body["next"]
    assert service.get(address).status == 200
    with contextlib.closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK events_head")
        cursor.execute("DELETE FROM events WHERE position = %s RETURNING order_id, number", (begin + 2,))
        ((lost, number),) = cursor.fetchall()
        cursor.execute("DELETE FROM order_events WHERE (order_id, number) = (%s, %s)", (lost, number))
        cursor.execute("UPDATE events_head SET position = %s", (begin + 1,))
        connection.commit()
    placed(service, (product, 1))
    wait_until(lambda: head(service) == begin + 2, "a new event has the position")
    error = problem(service.get(address), 409, "position_ahead")
    assert error["head"] == begin + 2


def test_only_so_many_may_wait(start: Start, sandbox: Sandbox) -> None:
    service = start(orders_streams=2)
    begin = head(service)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(wait_for_a_place, service, f"/events?after={begin}&wait=20") for _ in range(2)]
        refused = are_all_waiting(service, begin)
        assert problem(refused, 503, "streams_full")["code"]
        assert refused.headers["retry-after"] == "5"
        assert service.get(f"/events?after={begin}").status == 200
        placed(service, (sandbox.product(1), 1))
        assert [len(reply.result().body["events"]) for reply in waiting] == [1, 1]
    assert service.get(f"/events?after={begin + 1}&wait=0.05").status == 200  # the places are free again


def test_a_client_that_leaves_frees_its_place(start: Start) -> None:
    service = start(orders_streams=1)
    begin = head(service)
    address = urlsplit(service.url)
    raw = socket.create_connection((address.hostname, address.port))
    asked = f"GET /events?after={begin}&wait=25 HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    raw.sendall(asked)

    def waits() -> bool:
        with contextlib.suppress(BlockingIOError):
            if raw.recv(10_000, socket.MSG_DONTWAIT):  # refused: the place was ours, who look
                raw.sendall(asked)
        return service.get(f"/events?after={begin}&wait=0.01").status == 503

    wait_until(waits, "it waits")
    raw.close()
    wait_until(lambda: service.get(f"/events?after={begin}&wait=0.01").status == 200, "its place is free", within_s=15)


def test_a_shutdown_answers_those_who_wait(start: Start) -> None:
    service = start(orders_streams=1)
    begin = head(service)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait_for_a_place, service, f"/events?after={begin}&wait=25")
        are_all_waiting(service, begin)
        began_at = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert waiting.result().body["events"] == []
        assert service.process.wait(timeout=10) is not None
        assert time.monotonic() - began_at < 9, "it waited for the long poll"


def test_replicas_share_the_feed(start: Start, sandbox: Sandbox) -> None:
    first, second = start(), start()
    product = sandbox.product(100)
    begin = head(first)
    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(follow, service, begin, 20) for service in (first, second)]
        orders = list(pool.map(lambda service: placed(service, (product, 1)), [first, second] * 10))
        one, other = (reply.result() for reply in reading)
    assert one == other
    assert {event["order_id"] for event in one} == {order["id"] for order in orders}


def test_events_from_before_there_was_a_feed_are_in_it(start: Start, sandbox: Sandbox, dsn: str) -> None:
    service = start()
    order = placed(service, (sandbox.product(5), 1))
    service.move(order["id"], "Paid")
    head(service)
    service.kill()
    execute(dsn, "DELETE FROM events")
    execute(dsn, "UPDATE order_events SET xact = NULL")
    execute(dsn, "UPDATE events_head SET position = 0, cluster = NULL, seen = pg_current_snapshot()")
    service = start()
    assert [event["number"] for event in follow(service, 0, 2)] == [1, 2]


def test_the_command_prints_the_feed_and_follows_it(
    service: Service, sandbox: Sandbox, served_dsn: str, http: Http
) -> None:
    begin = head(service)
    words = [*ORDERS, "events", "--after", str(begin), "--types", "order.placed"]
    environment = {**os.environ, "DATABASE_URL": served_dsn}
    product = sandbox.product(5)
    order = placed(service, (product, 1))
    service.move(order["id"], "Paid")
    head(service)
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60, check=True)
    (line,) = ended.stdout.splitlines()
    assert json.loads(line) == service.get(f"/events?after={begin}&limit=1").body["events"][0]
    process = subprocess.Popen([*words, "--follow"], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["order_id"] == order["id"]
        later = placed(service, (product, 1))
        assert json.loads(process.stdout.readline())["order_id"] == later["id"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
