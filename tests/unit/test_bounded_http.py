"""uvicorn with our bounds, over real sockets, with time-outs that are short so that the tests are."""

import asyncio
import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from orders.wire import bounded_http, connections, sweep
from orders.wire.bounded_http import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED,
    MAX_SMALL_CHUNKS,
    WHOLE_BODY_BYTES,
    BoundedHttp,
)
from tests.conftest import wait_until

GET = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class App:
    """Answers with the body's length; `/deaf` without reading it, `/held` when it is let go, `/large` with 8 MB."""

    seen: list[str] = field(default_factory=list)
    disconnected: int = 0
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]) -> None:
        self.seen.append(scope["path"])
        length = 0
        while scope["path"] != "/deaf":
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected += 1
                break
            length += len(message["body"])
            if not message["more_body"]:
                break
        if scope["path"] == "/held":
            await self.let_go.wait()
        body = b"x" * 8_000_000 if scope["path"] == "/large" else str(length).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Server:
    """A server in a thread of its own."""

    def __init__(self) -> None:
        self.app = App()
        self._clients: list[socket.socket] = []
        self._listener = listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = listener.getsockname()
        config = uvicorn.Config(self.app, http=BoundedHttp, log_config=None, lifespan="off", interface="asgi3")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, "the server listens")

    def connect(self, sent: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.address, timeout=30)
        self._clients.append(client)
        client.sendall(sent)
        return client

    @property
    def open_count(self) -> int:
        return len(self._server.server_state.connections)

    def let_go(self) -> None:
        self._server.servers[0].get_loop().call_soon_threadsafe(self.app.let_go.set)

    def begin_stop(self) -> None:
        self._server.should_exit = True

    def stop(self) -> None:
        if self._thread.is_alive():
            self.let_go()
        self.begin_stop()
        for client in self._clients:
            client.close()
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Starts a server with these bounds, each by its name; time-outs are long unless given."""
    running: list[Server] = []
    monkeypatch.setattr(sweep, "SWEEP_S", 0.02)

    def start(most: int = 100, **bounds: float) -> Server:
        monkeypatch.setattr(BoundedHttp, "most", most)
        for name, value in bounds.items():
            module = bounded_http if hasattr(bounded_http, name.upper()) and not name.endswith("_s") else connections
            monkeypatch.setattr(module, name.upper(), value)
        running.append(Server())
        return running[-1]

    yield start
    for server in running:
        server.stop()


def everything(client: socket.socket) -> bytes:
    """What is sent until the connection is closed."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            said += data
    return said


def answered(client: socket.socket) -> bytes:
    """The next answer of a few bytes."""
    said = b""
    while not (said.count(b"\r\n\r\n") and said.split(b"\r\n\r\n")[1]):
        data = client.recv(65536)
        assert data, said
        said += data
    return said


def problem_in(said: bytes) -> dict[str, Any]:
    head, body = said.split(b"\r\n\r\n", 1)
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    document: dict[str, Any] = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {document['status']} ".encode())
    return document


def is_closed(client: socket.socket) -> bool:
    return everything(client) == b""


# What is sent -----------------------------------------------------------------------------------------------------


def head(size: int) -> bytes:
    start = b"GET / HTTP/1.1\r\nHost: shop\r\nX-Long: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


def test_a_head_of_just_the_bound_is_served_and_one_byte_more_is_431(serve: Callable[..., Server]) -> None:
    server = serve()
    assert b"200 OK" in answered(server.connect(head(MAX_HEAD_BYTES)))
    document = problem_in(everything(server.connect(head(MAX_HEAD_BYTES + 1))))
    assert (document["status"], document["code"]) == (431, "head_too_large")
    client = server.connect(GET)
    answered(client)
    client.sendall(head(MAX_HEAD_BYTES + 1))  # also the second of a connection
    assert problem_in(everything(client))["status"] == 431
    assert server.app.seen == ["/", "/"]


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        (b"GET /", b"x"),
        (b"GET / HTTP/1.1\r\nX: ", b"x"),
        (b"GET / HTTP/1.1\r\n", b"x: y\r\n"),
        (b"", b"\r\n"),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"x: y\r\n"),
        (CHUNKED + b"1;", b"x"),
    ],
    ids=["target", "value", "headers", "empty lines", "trailers", "chunk extension"],
)
def test_whatever_has_no_end_is_431_after_the_bound(serve: Callable[..., Server], start: bytes, rest: bytes) -> None:
    server = serve()
    client = server.connect(start)
    fed = 0
    with contextlib.suppress(OSError):
        while fed < 64 * 1024 * 1024:
            fed += client.send(rest * 4096)
    assert fed < 16 * 1024 * 1024  # what the kernel had room for on the way
    assert problem_in(everything(client))["status"] == 431
    wait_until(lambda: server.open_count == 0, "it is closed")


def test_too_many_headers_are_431_however_short(serve: Callable[..., Server]) -> None:
    server = serve()
    lines = b"".join(b"a:\r\n" for _ in range(MAX_HEADERS))
    assert problem_in(everything(server.connect(GET[:-2] + lines + b"\r\n")))["status"] == 431
    assert b"200 OK" in answered(server.connect(GET[:-2] + lines[4:] + b"\r\n"))


def test_what_is_no_http_is_told_so(serve: Callable[..., Server]) -> None:
    server = serve()
    for rubbish in (
        b"\x16\x03\x01\x02\x00\x01",
        b"HELLO\r\n\r\n",
        b"GET \xff HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    ):
        assert problem_in(everything(server.connect(rubbish)))["code"] == "not_http"


@pytest.mark.parametrize(
    "rubbish", [b"HELLO\r\n\r\n", b"x" * 3 * MAX_HEAD_BYTES, CHUNKED + b"rubbish"], ids=["no HTTP", "endless", "body"]
)
def test_rubbish_after_a_request_waits_for_its_answer_and_takes_nothing_from_it(
    serve: Callable[..., Server], rubbish: bytes
) -> None:
    server = serve()
    client = server.connect(GET.replace(b"/", b"/held", 1) + rubbish)
    wait_until(lambda: server.app.seen, "it is being answered")
    server.let_go()
    said = everything(client)
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"200 OK" in said


def test_pipelined_requests_are_answered_in_order_and_many_of_them_not_all(serve: Callable[..., Server]) -> None:
    server = serve()
    client = server.connect(GET * (MAX_PIPELINED + 1))
    said = b""
    while said.count(b"200 OK") < MAX_PIPELINED + 1:
        said += client.recv(65536)
    assert b"200 OK" in (client.sendall(GET) or answered(client))
    said = everything(server.connect(GET * 5000))
    assert MAX_PIPELINED <= said.count(b"200 OK") < 100


def test_a_long_body_that_nobody_reads_ends_the_connection_and_fills_no_memory(serve: Callable[..., Server]) -> None:
    server = serve()
    client = server.connect(CHUNKED.replace(b"/", b"/deaf", 1))
    chunk, fed = b"10000\r\n" + b"x" * 65536 + b"\r\n", 0
    with contextlib.suppress(OSError):
        while fed < 1024 * 1024 * 1024:
            fed += client.send(chunk)
    assert fed < 64 * 1024 * 1024
    assert b"200 OK" in everything(client)


def test_a_body_that_was_answered_before_it_ended_leaves_the_connection_usable(serve: Callable[..., Server]) -> None:
    server = serve()
    large = b"40001\r\n" + b"x" * (WHOLE_BODY_BYTES + 1) + b"\r\n"
    client = server.connect(CHUNKED.replace(b"/", b"/deaf", 1) + large)
    assert b"200 OK" in answered(client)
    client.sendall(b"3\r\nabc\r\n0\r\n\r\n" + GET)
    assert b"200 OK" in answered(client)


def test_the_app_is_not_asked_before_the_body_is_whole_unless_the_client_waits_for_it(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    half = server.connect(CHUNKED + b"3\r\nabc\r\n")
    waiting = server.connect(CHUNKED[:-2] + b"Expect: 100-continue\r\n\r\n")
    assert waiting.recv(100).startswith(b"HTTP/1.1 100 ")
    waiting.sendall(b"2\r\nab\r\n0\r\n\r\n")
    assert answered(waiting).endswith(b"2")
    assert len(server.app.seen) == 1
    half.sendall(b"1\r\nd\r\n0\r\n\r\n")
    assert answered(half).endswith(b"4")


def test_a_client_that_wants_the_connection_closed_reads_its_answer_while_it_sends(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    start = b"POST /deaf HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: 1200000\r\n\r\n"
    client = server.connect(start + b"x" * 300_000)
    said = answered(client)  # and now it goes on, as a client does that reads only when it has sent all
    for _ in range(9):
        client.sendall(b"x" * 100_000)
    assert (said.count(b"200 OK"), said.count(b"connection: close")) == (1, 1)
    assert client.recv(1) == b""


def test_many_very_short_chunks_are_refused_and_a_few_are_served(serve: Callable[..., Server]) -> None:
    server, count = serve(), MAX_SMALL_CHUNKS
    few = server.connect(CHUNKED + b"1\r\nx\r\n" * count + b"0\r\n\r\n")
    assert answered(few).endswith(b"\r\n\r\n%d" % count)
    longer = server.connect(CHUNKED + b"80\r\n%s\r\n" % (b"x" * 128) * (2 * count) + b"0\r\n\r\n")
    assert answered(longer).endswith(b"\r\n\r\n%d" % (2 * count * 128))
    many = server.connect(CHUNKED + b"1\r\nx\r\n" * (count + 1) * 10)
    assert problem_in(everything(many))["code"] == "not_http"


def test_a_body_that_is_written_byte_by_byte_is_served(serve: Callable[..., Server]) -> None:
    length = MAX_SMALL_CHUNKS + 50
    client = serve().connect(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n" % length)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(length):
        client.sendall(b"x")
    assert answered(client).endswith(b"\r\n\r\n%d" % length)


def test_bodies_together_are_bounded_and_small_ones_still_get_in(serve: Callable[..., Server]) -> None:
    server = serve(max_bodies_bytes=300_000)
    start = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 200001\r\n\r\n" + b"x" * 200_000
    both = [server.connect(start), server.connect(start)]
    refused = select.select(both, [], [], 30)[0][0]
    assert problem_in(everything(refused))["code"] == "connections_full"
    small = server.connect(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc")
    assert answered(small).endswith(b"3")
    both.remove(refused)
    both[0].sendall(b"x")
    assert answered(both[0]).endswith(b"200001")
    assert answered(server.connect(start + b"x")).endswith(b"200001")  # what was answered counts no more


def test_an_upgrade_is_ignored_and_the_connection_closed_after_the_answer(serve: Callable[..., Server]) -> None:
    server = serve()
    for upgrade in (b"h2c", b"websocket"):
        asked = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n"
        said = everything(server.connect(asked + b"what follows"))
        assert (said.count(b"HTTP/1.1"), b"200 OK" in said) == (1, True)


# How slowly -------------------------------------------------------------------------------------------------------


def test_headers_that_do_not_come_are_408_and_silence_is_closed_silently(serve: Callable[..., Server]) -> None:
    server = serve(head_s=0.3)
    silent, slow, second = server.connect(), server.connect(GET[:10]), server.connect(GET + GET[:10])
    for byte in GET[10:18]:  # each byte comes in time; all together don't
        time.sleep(0.02)
        slow.send(bytes([byte]))
    assert is_closed(silent)
    assert problem_in(everything(slow))["code"] == "request_too_slow"
    first, late = everything(second).split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 OK")
    assert problem_in(b"HTTP/1.1 " + late)["code"] == "request_too_slow"
    wait_until(lambda: server.open_count == 0, "all are closed")


@pytest.mark.parametrize("size", [3, WHOLE_BODY_BYTES + 1], ids=["small", "large"])
def test_a_body_that_does_not_come_is_408_and_the_app_knows(serve: Callable[..., Server], size: int) -> None:
    server = serve(body_s=0.3)
    start = CHUNKED.replace(b"/", b"/some/where", 1) + b"%x\r\n" % size + b"x" * size
    document = problem_in(everything(server.connect(start)))
    assert (document["code"], document["instance"]) == ("request_too_slow", "/some/where")
    wait_until(lambda: server.app.disconnected == len(server.app.seen), "whoever read it has stopped")
    assert len(server.app.seen) == (size > WHOLE_BODY_BYTES)


def test_an_answer_that_takes_long_is_waited_for(serve: Callable[..., Server]) -> None:
    server = serve(head_s=0.1, body_s=0.1)
    client = server.connect(GET.replace(b"/", b"/held", 1))
    time.sleep(0.4)
    server.let_go()
    assert b"200 OK" in answered(client)


def test_an_idle_connection_is_closed_and_empty_lines_keep_none_open(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "IDLE_S", 1)
    server = serve()
    idle, noisy = server.connect(GET), server.connect(GET)
    assert answered(idle)
    assert answered(noisy)
    with contextlib.suppress(OSError):
        for _ in range(100):
            noisy.send(b"\r\n")
            time.sleep(0.03)
    assert is_closed(idle)
    assert is_closed(noisy)


def test_a_client_that_reads_nothing_is_cut(serve: Callable[..., Server]) -> None:
    server = serve(unread_s=0.3)
    deaf = server.connect(GET.replace(b"/", b"/large", 1))
    wait_until(lambda: server.app.seen and server.open_count == 0, "it is cut")
    assert len(everything(deaf)) < 8_000_000


def test_a_client_that_reads_slowly_gets_everything(serve: Callable[..., Server]) -> None:
    server = serve(unread_s=0.5)
    slow = server.connect(GET.replace(b"/", b"/large", 1))
    length = 0
    while length < 8_000_000:
        length += len(slow.recv(200_000))
        time.sleep(0.03)
    assert length < 8_001_000


def test_answers_that_nobody_reads_are_bounded_together(serve: Callable[..., Server]) -> None:
    server = serve(max_unread_bytes=10_000_000, stalled_s=0.1)
    deaf = [server.connect(GET.replace(b"/", b"/large", 1)) for _ in range(12)]
    wait_until(lambda: len(server.app.seen) == 12 and server.open_count < 12, "some are cut")
    reader = server.connect(GET.replace(b"/", b"/large", 1))
    length = 0
    while length < 8_000_000:
        length += len(data := reader.recv(1_000_000))
        assert data
    assert deaf


# How many ---------------------------------------------------------------------------------------------------------


def test_when_all_connections_are_taken_the_slow_and_the_idle_make_room(serve: Callable[..., Server]) -> None:
    server = serve(most=20)
    slow = [server.connect(GET[:10]) for _ in range(10)]
    idle = [server.connect(GET) for _ in range(10)]
    for client in idle:
        answered(client)
    newcomers = []
    for _ in range(20):
        newcomers.append(server.connect(GET))
        assert b"200 OK" in answered(newcomers[-1])
    wait_until(lambda: server.open_count == 20, "no more are open than may be")
    assert {problem_in(everything(client))["code"] for client in slow} == {"connections_full"}
    assert all(is_closed(client) for client in idle)


def test_a_thousand_that_send_nothing_keep_nobody_out(serve: Callable[..., Server]) -> None:
    server = serve(most=50)
    silent = [server.connect() for _ in range(1000)]
    assert b"200 OK" in answered(server.connect(GET))
    wait_until(lambda: server.open_count <= 50, "the oldest are closed")
    assert is_closed(silent[0])


def test_where_all_are_busy_a_few_more_get_in_and_the_next_is_told(serve: Callable[..., Server]) -> None:
    server = serve(most=16)
    busy = [server.connect(GET.replace(b"/", b"/held", 1)) for _ in range(18)]
    wait_until(lambda: len(server.app.seen) == 18, "all are being answered")
    said = everything(server.connect(GET))
    assert problem_in(said)["code"] == "connections_full"
    assert b"retry-after: 1" in said
    server.let_go()
    assert all(b"200 OK" in answered(client) for client in busy)
    assert b"200 OK" in answered(server.connect(GET))
    wait_until(lambda: server.open_count <= 17, "those that were too many are closed after their answers")


def test_a_stop_waits_for_the_answer_under_way_and_for_nobody_else(serve: Callable[..., Server]) -> None:
    server = serve()
    idle, slow = server.connect(GET), server.connect(GET[:10])
    answered(idle)
    held = server.connect(GET.replace(b"/", b"/held", 1))
    wait_until(lambda: server.app.seen[-1] == "/held", "it is being answered")
    server.begin_stop()
    assert is_closed(idle)
    assert is_closed(slow)
    server.let_go()
    assert b"200 OK" in everything(held)
