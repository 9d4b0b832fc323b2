"""The stream of events over HTTP: readers that connect again, slow ones, too many, and a shutdown."""

import http.client
import json
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from orders.principal import Scope
from tests.conftest import Sandbox, execute, free_port, wait_until
from tests.e2e.conftest import Service, Start, listening
from tests.e2e.test_contract import problem
from tests.e2e.test_feed import follow, head
from tests.e2e.test_keys import bearer, key_in
from tests.e2e.test_life import placed
from tests.e2e.test_other_pages import Site, chromium, site  # noqa: F401 (a fixture)
from tests.sse import Reader


def reader(service: Service, query: str = "", **headers: str) -> Reader:
    return Reader(lambda: service.url, f"/events/stream{query}", headers)


def open_raw(service: Service, query: str = "", receive_bytes: int = 0) -> socket.socket:
    """An open stream, by hand, once its head has come."""
    address = urlsplit(service.url)
    raw = socket.socket()
    if receive_bytes:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.settimeout(60)
    raw.connect((address.hostname, address.port))
    raw.sendall(f"GET /events/stream{query} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    assert raw.recv(12) == b"HTTP/1.1 200"
    return raw


def many_events(service: Service, sandbox: Sandbox, count: int, moves: int) -> None:
    """Thousands of large events: `count` orders, each moved several times with a long note."""
    product = sandbox.product(count)
    lines = [{"product_id": product, "quantity": 1}]
    ids = list[str]()
    for _ in range(count // 100):
        placing = {"orders": [{"customer_id": n + 1, "items": lines} for n in range(100)]}
        placed_now = service.http.post(f"{service.url}/orders:batch", placing).body["results"]
        ids += [result["order"]["id"] for result in placed_now]
    for status in ("Confirmed", "Paid", "Processing", "Shipped", "Delivered")[:moves]:
        moving = {"orders": [{"id": id, "status": status, "note": "n" * 900} for id in ids]}
        assert service.http.put(f"{service.url}/orders:batch", moving).status == 200


def start_at(start: Start, port: int, **settings: Any) -> Service:
    """A replica that listens on this port."""
    service = start(wait=False, port=port, **settings)
    service.url = f"http://127.0.0.1:{port}"
    return listening(service)


def test_a_stream_sends_what_the_feed_has_as_it_happens(service: Service, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    placed(service, (product, 1))
    begin = head(service)
    with reader(service).until_open() as stream:
        assert stream.last_id == str(begin)
        order = placed(service, (product, 1))
        service.move(order["id"], "Paid")
        events = stream.until(2)
        assert events == follow(service, begin, 2)
        assert stream.kinds == ["order.placed", "order.moved"]
        assert stream.last_id == str(begin + 2)


def test_the_answer_is_kept_by_nobody_on_the_way(service: Service) -> None:
    address = urlsplit(service.url)
    for method in ("GET", "HEAD"):
        connection = http.client.HTTPConnection(address.netloc, timeout=60)
        connection.request(method, "/events/stream")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers.get_all("cache-control") == ["no-cache", "no-store"]
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        answer.close()
        connection.close()


def test_a_stream_begins_after_a_position_and_last_event_id_wins(service: Service, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    begin = head(service)
    for _ in range(3):
        placed(service, (product, 1))
    head(service)
    with reader(service, f"?after={begin}") as stream:
        stream.until(3)
        assert stream.positions == [begin + 1, begin + 2, begin + 3]
    with reader(service, f"?after={begin}", **{"Last-Event-ID": str(begin + 2)}) as stream:
        stream.until(1)
        assert stream.positions == [begin + 3]


def test_filters_hold_for_what_was_missed_and_for_what_happens(service: Service, sandbox: Sandbox) -> None:
    product = sandbox.product(20)
    begin = head(service)
    queries = {
        "types": f"?after={begin}&types=order.moved",
        "channel": f"?after={begin}&channel=web",
        "order": f"?after={begin}&order_id=",
        "all": f"?after={begin}",
    }
    line = {"items": [{"product_id": product, "quantity": 1}]}
    first = service.http.post(f"{service.url}/orders/7", {**line, "channel": "web"}).body
    queries["order"] += first["id"]
    service.move(first["id"], "Paid")
    other = placed(service, (product, 1))
    head(service)
    streams = {name: reader(service, query) for name, query in queries.items()}
    with streams["types"], streams["channel"], streams["order"], streams["all"]:
        streams["all"].until(3)
        for order in (first, other):
            service.move(order["id"], "Shipped")
        streams["all"].until(5)
        streams["types"].until(3)
        for name in ("channel", "order"):
            assert {event["order_id"] for event in streams[name].until(3)} == {first["id"]}
        assert {event["type"] for event in streams["types"].events} == {"order.moved"}
        assert [len(stream.events) for stream in streams.values()] == [3, 3, 3, 5]


@pytest.mark.parametrize(
    ("query", "headers", "pointer"),
    [
        ("after=-1", {}, "query/after"),
        ("after=1&after=2", {}, "query/after"),
        ("types=order.sold", {}, "query/types"),
        ("order_id=42", {}, "query/order_id"),
        ("wait=3", {}, "query/wait"),
        ("", {"Last-Event-ID": "x"}, "header/Last-Event-ID"),
        ("", {"Last-Event-ID": "9" * 19}, "header/Last-Event-ID"),
        ("", {"Last-Event-ID": "-1"}, "header/Last-Event-ID"),
    ],
)
def test_a_malformed_question_is_refused(service: Service, query: str, headers: dict[str, str], pointer: str) -> None:
    error = problem(service.get(f"/events/stream?{query}", headers=headers), 422, "invalid_request")
    assert error["errors"][0]["pointer"] == pointer


def test_a_position_that_the_feed_does_not_have_is_refused(service: Service) -> None:
    end = head(service)
    for query, headers in ((f"?after={end + 1}", {}), ("", {"Last-Event-ID": str(end + 1)})):
        assert problem(service.get(f"/events/stream{query}", headers=headers), 409, "position_ahead")["head"] == end


def test_readers_miss_nothing_and_get_nothing_twice_while_the_service_is_restarted(
    start: Start, sandbox: Sandbox
) -> None:
    """Some restarts are orderly, some are crashes. Writers go on at another replica."""
    other = start()
    running = [start()]
    begin = head(other)
    product = sandbox.product(1_000)
    everything = Reader(lambda: running[0].url, "/events/stream")
    moves = Reader(lambda: running[0].url, "/events/stream?types=order.moved")
    is_over = False

    def write(customer: int) -> int:
        count = 0
        while not is_over:
            order = other.place(customer, (product, 1)).body
            other.move(order["id"], "Paid")
            count += 1
        return count

    with everything.until_open(), moves.until_open(), ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, 71 + n) for n in range(3)]
        try:
            for how in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                seen = len(moves.events)
                moves.until(seen + 5)
                running[0].process.send_signal(how)
                running[0].process.wait(timeout=30)
                running[0] = start()
                everything.until_open(everything.connected + 1)
        finally:
            is_over = True
        count = sum(each.result() for each in writing)
        everything.until(2 * count)
        moves.until(count)
        end = head(other)
        assert everything.positions == list(range(begin + 1, end + 1))
        assert end == begin + 2 * count
        assert moves.positions == [e["position"] for e in everything.events if e["type"] == "order.moved"]
        assert everything.connected >= 5


def test_a_reader_that_is_too_slow_is_closed_and_resumes_without_loss(start: Start, sandbox: Sandbox) -> None:
    service = start()
    begin = head(service)
    raw = open_raw(service, receive_bytes=4096)  # it reads nothing more for now
    many_events(service, sandbox, 1000, moves=5)
    assert head(service) == begin + 6000
    with raw, raw.makefile("rb") as answer:
        text = "".join(line.decode() for line in iter(answer.readline, b"0\r\n"))  # up to its end: it was closed
    seen = [json.loads(line[6:])["position"] for line in text.splitlines() if line.startswith("data: ")]
    assert seen == list(range(begin + 1, begin + len(seen) + 1))
    assert len(seen) < 6000
    with reader(service, **{"Last-Event-ID": str(seen[-1])}) as stream:
        stream.until(6000 - len(seen))
        assert stream.positions == list(range(seen[-1] + 1, begin + 6001))


def test_only_so_many_streams_are_open_and_their_places_come_back(start: Start) -> None:
    service = start(orders_streams=2)
    head(service)
    first, second = open_raw(service), open_raw(service)
    refused = service.get("/events/stream")
    assert problem(refused, 503, "streams_full")["code"]
    assert refused.headers["retry-after"] == "5"
    assert service.get("/orders?limit=1").status == 200
    first.close()
    raw = wait_until(
        lambda: service.get("/events?wait=0.01&after=" + str(head(service))).status == 200, "there is room"
    )
    assert raw
    open_raw(service).close()
    second.close()


def test_streams_leave_connections_for_others(start: Start) -> None:
    service = start(orders_connections=16)
    head(service)
    streams = [open_raw(service) for _ in range(8)]
    assert problem(service.get("/events/stream"), 503, "streams_full")
    assert [service.get("/orders?limit=1").status for _ in range(20)] == [200] * 20
    for stream in streams:
        stream.close()


def test_a_shutdown_ends_the_streams_at_once(start: Start) -> None:
    service = start()
    head(service)
    streams = [reader(service).until_open() for _ in range(5)]
    began_at = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=10) is not None
    assert time.monotonic() - began_at < 9, "it waited for the streams"
    wait_until(lambda: all(stream.ended == 1 for stream in streams), "each stream came to a proper end")
    for stream in streams:
        stream.__exit__()


def test_a_stream_ends_soon_after_its_key_was_revoked(start: Start, sandbox: Sandbox, dsn: str) -> None:
    service = start(orders_access="closed")
    key, admin = key_in(dsn, Scope.EVENTS_READ), bearer(key_in(dsn, Scope.ACCESS_MANAGE))
    with reader(service, **bearer(key)).until_open() as stream:
        key_id = execute(dsn, "SELECT id FROM access_keys WHERE scopes = '{events:read}'")[0][0]
        assert service.http.send("DELETE", f"{service.url}/keys/{key_id}", headers=admin).status == 204
        wait_until(lambda: stream.status == 401, "it was ended, and may not connect again", within_s=20)
        assert stream.ended == 2


def test_a_key_with_a_channel_gets_that_channels_events_without_private_notes(
    start: Start, sandbox: Sandbox, dsn: str
) -> None:
    service = start(orders_access="closed")
    shop = bearer(key_in(dsn, Scope.ORDERS_PLACE, Scope.ORDERS_CHANGE, Scope.CUSTOMERS_READ, Scope.EVENTS_READ))
    web = bearer(key_in(dsn, Scope.EVENTS_READ, channel="web"))
    product = sandbox.product(5)
    with reader(service, **web).until_open() as seen, reader(service, **shop).until_open() as all_seen:
        for channel in ("web", "app", "web"):
            body = {
                "items": [{"product_id": product, "quantity": 1}],
                "channel": channel,
                "notes": {"private": "PRIVATE"},
            }
            order = service.http.post(f"{service.url}/orders/8", body, headers=shop).body
            patch = {"notes": {"private": "PRIVATE, TOO"}}
            headers = {**shop, "Content-Type": "application/merge-patch+json"}
            service.http.send("PATCH", f"{service.url}/orders/{order['id']}", patch, headers=headers)
        assert "PRIVATE" in json.dumps(all_seen.until(6))
        events = seen.until(4)
        assert {event["channel"] for event in events} == {"web"}
        assert {event["actor"] for event in events} == {"shop"}
        assert "PRIVATE" not in json.dumps(events)


PAGE = """<!doctype html><title>A page that follows</title><body><script>
const seen = [];
const source = new EventSource("SERVICE/events/stream");
const told = message => {
  seen.push([message.lastEventId, message.type, JSON.parse(message.data).position]);
  fetch("/", {method: "post", body: JSON.stringify({seen})});
};
source.addEventListener("order.placed", told);
source.addEventListener("order.moved", told);
source.onopen = () => fetch("/", {method: "post", body: JSON.stringify({opened: true})});
</script>"""


def test_a_browser_connects_again_and_misses_nothing(
    start: Start,
    sandbox: Sandbox,
    site: Site,  # noqa: F811
    tmp_path: Path,
) -> None:
    port = free_port()
    settings = {"orders_cors_origins": f"http://127.0.0.1:{site.port}", "orders_access": "open"}
    service, other = start_at(start, port, **settings), start(orders_access="open")
    begin = head(service)
    site.pages["/"] = PAGE.replace("SERVICE", service.url).replace("COUNT", "6")
    product = sandbox.product(10)

    def write() -> None:
        wait_until(lambda: site.said.get("opened"), "the stream is open")
        order = placed(other, (product, 1))  # not seen before the restart by a browser that has seen nothing
        service.kill()
        other.move(order["id"], "Paid")
        again = start_at(start, port, **settings)
        wait_until(lambda: len(site.said.get("seen", ())) >= 2, "it has connected again")
        placed(other, (product, 1))
        wait_until(lambda: len(site.said["seen"]) >= 3, "it goes on")
        again.process.send_signal(signal.SIGTERM)
        again.process.wait(timeout=30)
        placed(other, (product, 1))
        start_at(start, port, **settings)
        for _ in range(2):
            placed(other, (product, 1))

        wait_until(lambda: len(site.said["seen"]) >= 6, "it has seen everything")

    command = chromium(tmp_path, "--remote-debugging-port=0", f"http://127.0.0.1:{site.port}/")
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        write()
    finally:
        browser.terminate()
        browser.wait(timeout=60)
    seen = site.said["seen"]
    assert [position for *_, position in seen] == list(range(begin + 1, begin + 7))
    assert [last_id for last_id, *_ in seen] == [str(n) for n in range(begin + 1, begin + 7)]
    assert [kind for _, kind, _ in seen] == ["order.placed", "order.moved", *["order.placed"] * 4]
