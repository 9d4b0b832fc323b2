"""Whatever the neighbours answer: understood as the contract says, or refused; nothing is ordered on rubbish."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orders.neighbours.carts import Cart, Carts
from orders.neighbours.catalog import Catalog, Product, Written
from orders.neighbours.concurrency import Learnt
from orders.neighbours.neighbour import Neighbour
from orders.neighbours.reply import CircuitOpen, MalformedReply, NoAnswer, NotSent, Reply, build_client
from orders.order.model import Line

# A client that hangs up in the middle of a large reply leaves the end of the script to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Script:
    """A neighbour that answers each path with what it was told to, and remembers what it was sent."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.requests: list[tuple[str, str, bytes, dict[str, str]]] = []

    def say(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[path] = (status, raw, headers)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Script]]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length") or 0))
            script.requests.append((self.command, self.path, sent, {k.lower(): v for k, v in self.headers.items()}))
            status, body, headers = script.answers[self.path]
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", script
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def script(server: tuple[str, Script]) -> Script:
    server[1].answers.clear()
    server[1].requests.clear()
    return server[1]


@pytest.fixture
async def neighbour(server: tuple[str, Script]) -> AsyncIterator[Neighbour]:
    client = build_client(timeout_s=1)
    it = Neighbour("It", server[0], client, breaker_failures=1000, breaker_rest_s=1)
    it.capacity.adopt(Learnt(64, is_proven=True))
    yield it
    await client.close()


BARE = {"id": 7, "name": "Whispers", "price": 10, "quantity": 49, "tags": ["a"], "weight": 1.5, "huge": 10**30}


@pytest.mark.parametrize("envelope", [None, "product_detail", "data", "product"])
async def test_a_product_in_every_envelope_and_its_put_gives_back_all_that_came(
    envelope: str | None, script: Script, neighbour: Neighbour
) -> None:
    script.say("/products/7", {envelope: BARE} if envelope else BARE, ETag='"v1"')
    product = await Catalog(neighbour).read(7)
    assert product is not None
    assert (product.name, product.price, product.quantity, product.etag) == ("Whispers", 10, 49, '"v1"')
    assert await Catalog(neighbour).write(product, 47) is Written.DONE
    method, _, body, headers = script.requests[-1]
    assert (method, json.loads(body), headers["if-match"]) == ("PUT", {**BARE, "quantity": 47}, '"v1"')


@pytest.mark.parametrize(("body", "status"), [("product with id: 7 was not found", 200), ({}, 404), (b"", 404)])
async def test_a_product_that_is_not_there(body: Any, status: int, script: Script, neighbour: Neighbour) -> None:
    script.say("/products/7", body, status)
    assert await Catalog(neighbour).read(7) is None


@pytest.mark.parametrize("etag", ['W/"v1"', "v1", "*", '"v1", "v2"', '"v1', "", '"é"'])
async def test_a_weak_etag_is_none_and_so_is_what_is_no_etag(etag: str, script: Script, neighbour: Neighbour) -> None:
    script.say("/products/7", BARE, ETag=etag)
    product = await Catalog(neighbour).read(7)
    assert product is not None
    assert product.etag is None


@pytest.mark.parametrize(
    "body",
    [
        [], None, 7, {}, {"product_detail": []}, {"product_detail": "gone"}, b"", b'{"name": "x", "pri', b"\xff\xfe",
        b"[" * 100_000, b'{"name": "x", "price": 1, "quantity": NaN}', b'{"name": "x", "price": 1, "quantity": 1e999}',
        b'{"name": "x", "price": 1, "quantity": 1, "weight": 1e999}', b'{"name": "\\ud800", "price": 1, "quantity": 1}',
        {**BARE, "quantity": -(2**63)}, {**BARE, "quantity": 1.0}, {**BARE, "quantity": "49"},
        {**BARE, "quantity": True},
        {**BARE, "quantity": None}, {**BARE, "quantity": 2**63}, {**BARE, "price": -1}, {**BARE, "price": "10"},
        {**BARE, "id": 8}, {**BARE, "name": None}, {**BARE, "name": "a\0b"}, {**BARE, "name": "x" * 10_001},
        b'{"name": "x", "price": 1, "quantity": 1, "quantity": 2}', {**BARE, "tags": json.loads("[" * 150 + "]" * 150)},
    ],
)  # fmt: skip
async def test_a_product_of_the_wrong_shape_is_rubbish(body: Any, script: Script, neighbour: Neighbour) -> None:
    script.say("/products/7", body)
    with pytest.raises(MalformedReply):
        await Catalog(neighbour).read(7)


@hypothesis_settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*BARE, "product_detail", "cart"]), inner),
    )
)
async def test_whatever_json_comes_it_is_a_product_or_none_or_rubbish(document: Any) -> None:
    with build_scripted(document) as (url, _):
        client = build_client(timeout_s=1)
        try:
            product = await Catalog(Neighbour("It", url, client, 1000, 1)).read(7)
        except MalformedReply:
            product = None
        finally:
            await client.close()
    assert product is None or (isinstance(product, Product) and product.quantity >= 0 and product.price >= 0)


class build_scripted:  # noqa: N801 (used like a function)
    """A neighbour that answers everything with one document."""

    def __init__(self, document: Any) -> None:
        body = json.dumps(document).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> tuple[str, ThreadingHTTPServer]:
        threading.Thread(target=lambda: self._httpd.serve_forever(0.01), daemon=True).start()
        return f"http://127.0.0.1:{self._httpd.server_port}", self._httpd

    def __exit__(self, *_: object) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()


@pytest.mark.parametrize(
    ("status", "body", "written"),
    [
        (200, {"product_detail": {}}, Written.DONE), (200, b"", Written.DONE), (204, b"", Written.DONE),
        (200, "product with id: 7 was not found", Written.DISPUTED), (404, {}, Written.DISPUTED),
        (400, {}, Written.DISPUTED), (403, b"no", Written.DISPUTED), (301, b"", Written.DISPUTED),
        (303, b"", Written.UNKNOWN), (304, b"", Written.UNKNOWN),
        (412, {}, Written.CHANGED), (429, {}, Written.NOT_SENT), (408, {}, Written.UNKNOWN), (500, {}, Written.UNKNOWN),
        (503, b"", Written.UNKNOWN), (200, b"<html>", Written.UNKNOWN),
    ],
)  # fmt: skip
async def test_what_a_put_says(status: int, body: Any, written: Written, script: Script, neighbour: Neighbour) -> None:
    script.say("/products/7", body, status)
    product = Product(7, "Whispers", 10, 49, None, dict(BARE))
    assert await Catalog(neighbour).write(product, 48) is written
    assert len(script.requests) == 1


async def test_a_put_is_not_sent_when_it_is_too_late(script: Script, neighbour: Neighbour) -> None:
    product = Product(7, "Whispers", 10, 49, None, dict(BARE))
    assert await Catalog(neighbour).write(product, 48, not_after=0) is Written.NOT_SENT
    assert script.requests == []


async def test_a_get_is_tried_three_times(script: Script, neighbour: Neighbour) -> None:
    script.say("/products/7", {}, 500)
    with pytest.raises(NoAnswer):
        await Catalog(neighbour).read(7)
    assert len(script.requests) == 3


async def test_a_neighbour_that_keeps_failing_is_left_alone_for_a_while(
    server: tuple[str, Script], script: Script
) -> None:
    client = build_client(timeout_s=1)
    tired = Neighbour("It", server[0], client, breaker_failures=2, breaker_rest_s=60)
    script.say("/products/7", {}, 500)
    for expected in (CircuitOpen, CircuitOpen):
        with pytest.raises(expected):
            await Catalog(tired).read(7)
    assert len(script.requests) == 2
    await client.close()


async def test_a_reply_that_is_too_large_is_not_read_to_its_end(script: Script, neighbour: Neighbour) -> None:
    script.say("/products/7", b" " * 1024 * 1024 + b"{}")
    with pytest.raises(MalformedReply, match="larger"):
        await Catalog(neighbour).read(7)
    assert len(script.requests) == 1


async def test_a_reply_in_chunks_is_not_believed_to_be_as_short_as_it_says() -> None:
    async def go_on_and_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                await writer.drain()
        writer.close()

    client = build_client(timeout_s=5)
    async with await asyncio.start_server(go_on_and_on, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(MalformedReply, match="larger"):
            await Catalog(Neighbour("It", f"http://127.0.0.1:{port}", client, 1000, 1)).read(7)
        await client.close()


async def test_a_refused_connection_is_a_definite_no() -> None:
    client = build_client(timeout_s=1)
    with pytest.raises(NotSent):
        await Neighbour("It", "http://127.0.0.1:9", client, 1000, 1).put("/products/7", b"{}")
    await client.close()


@pytest.mark.parametrize("it", ["hangs up", "breaks the connection", "says nothing", "stops in the middle"])
async def test_a_request_that_was_sent_and_not_answered_may_have_had_an_effect(it: str) -> None:
    async def misbehave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        if it == "says nothing":
            await reader.read()  # until the client gives up
        if it == "stops in the middle":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            await writer.drain()
        if it == "breaks the connection":
            writer.transport.abort()
        writer.close()

    client = build_client(timeout_s=0.2)
    async with await asyncio.start_server(misbehave, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NoAnswer):
            await Neighbour("It", f"http://127.0.0.1:{port}", client, 1000, 1).put("/products/7", b"{}")
        await client.close()


CART = {"id": 3, "customer_id": 42, "status": "Active"}
ITEMS = [{"product_id": 7, "quantity": 2}, {"product_id": 5, "quantity": 1}, {"product_id": 7, "quantity": 1}]
MINE = Cart(3, True, (Line(5, 1), Line(7, 3)))


@pytest.mark.parametrize(
    "document",
    [{"cart": {**CART, "items": ITEMS}}, {"cart": CART, "items": ITEMS}, {**CART, "items": ITEMS}],
)
async def test_a_cart_with_its_items_in_it_or_beside_it(document: Any, script: Script, neighbour: Neighbour) -> None:
    script.say("/carts/42", document)
    assert await Carts(neighbour).read(42) == MINE


async def test_a_cart_whose_items_are_among_all_items(script: Script, neighbour: Neighbour) -> None:
    script.say("/carts/42", {"cart": CART})
    others = [{"id": 9, "cart_id": 4, "product_id": "rubbish"}, {"id": 8, "cart_id": 5, "product_id": 7, "quantity": 9}]
    script.say("/cart_items", {"items": [*({**item, "cart_id": 3} for item in ITEMS), *others]})
    assert await Carts(neighbour).read(42) == MINE


async def test_items_that_name_another_cart_are_not_this_cart_s(script: Script, neighbour: Neighbour) -> None:
    items = [{**ITEMS[0], "cart_id": 3}, {**ITEMS[1], "cart_id": 4}, ITEMS[2]]
    script.say("/carts/42", {"cart": {**CART, "items": items}})
    assert await Carts(neighbour).read(42) == Cart(3, True, (Line(7, 3),))


@pytest.mark.parametrize(("quantities", "lines"), [((2, 0, -1), (Line(1, 2),)), ((0, -5), ())])
async def test_a_line_of_nothing_or_less_is_left_out(
    quantities: tuple[int, ...], lines: tuple[Line, ...], script: Script, neighbour: Neighbour
) -> None:
    items = [{"product_id": n, "quantity": quantity} for n, quantity in enumerate(quantities, 1)]
    script.say("/carts/42", {"cart": {**CART, "items": items}})
    assert await Carts(neighbour).read(42) == Cart(3, True, lines)


async def test_a_negative_quantity_is_sold_out(script: Script, neighbour: Neighbour) -> None:
    script.say("/products/7", {**BARE, "quantity": -3})
    product = await Catalog(neighbour).read(7)
    assert product is not None
    assert product.quantity == 0


async def test_the_items_of_all_carts_are_read_beside_the_event_loop_and_not_kept(
    script: Script, neighbour: Neighbour
) -> None:
    script.say("/carts/42", {"cart": CART})
    others = [{"id": n, "cart_id": 4, "product_id": 7, "quantity": 1} for n in range(120_000)]
    script.say("/cart_items", {"items": [*others, {"cart_id": 3, "product_id": 5, "quantity": 2}]})
    assert await Carts(neighbour).read(42) == Cart(3, True, (Line(5, 2),))
    script.say("/cart_items", {"items": [*others, *others]})
    with pytest.raises(MalformedReply, match=r"larger than 8388608 bytes; let GET /carts/\{customer_id\} answer with"):
        await Carts(neighbour).read(42)


async def test_who_waits_for_the_items_of_all_carts_shares_one_reply(script: Script, neighbour: Neighbour) -> None:
    script.say("/cart_items", {"items": [{"cart_id": n, "product_id": n, "quantity": 1} for n in range(1, 41)]})
    for n in range(1, 41):
        script.say(f"/carts/{n}", {"cart": {"id": n, "customer_id": n, "status": "Active"}})
    carts = Carts(neighbour)
    read = await asyncio.gather(*(carts.read(n) for n in range(1, 41)))
    assert read == [Cart(n, True, (Line(n, 1),)) for n in range(1, 41)]
    assert len([path for _, path, _, _ in script.requests if path == "/cart_items"]) < 20  # each may be of 8 MiB


@pytest.mark.parametrize(("body", "status"), [("no active cart", 200), ({}, 404)])
async def test_a_customer_without_a_cart(body: Any, status: int, script: Script, neighbour: Neighbour) -> None:
    script.say("/carts/42", body, status)
    assert await Carts(neighbour).read(42) is None


async def test_a_cart_that_was_ordered_is_not_active(script: Script, neighbour: Neighbour) -> None:
    script.say("/carts/42", {"cart": {**CART, "status": "Ordered"}})
    assert await Carts(neighbour).read(42) == Cart(3, False, ())


@pytest.mark.parametrize(
    "document",
    [
        [], None, {"cart": []}, {"cart": {**CART, "id": None}}, {"cart": {**CART, "id": True}},
        {"cart": {**CART, "customer_id": 43, "items": []}}, {"cart": {**CART, "items": {}}},
        {"cart": {**CART, "items": [7]}}, {"cart": {**CART, "items": [{"product_id": 7, "quantity": None}]}},
        {"cart": {**CART, "items": [{"product_id": "7", "quantity": 1}]}},
        {"cart": {**CART, "items": [{"product_id": 7, "quantity": 1.5}]}},
    ],
)  # fmt: skip
async def test_a_cart_of_the_wrong_shape_is_rubbish(document: Any, script: Script, neighbour: Neighbour) -> None:
    script.say("/carts/42", document)
    with pytest.raises(MalformedReply):
        await Carts(neighbour).read(42)


@pytest.mark.parametrize(
    ("body", "written"), [(b"", Written.DISPUTED), (b"null", Written.DISPUTED), (b"{}", Written.DONE)]
)
async def test_where_calls_may_be_mixed_up_done_has_to_say_something(body: bytes, written: Written) -> None:
    class Unproven:
        async def put(self, *_: Any, **__: Any) -> Reply:
            return Reply(200, body, None, is_proven=False)

    product = Product(7, "Whispers", 10, 49, None, dict(BARE))
    assert await Catalog(Unproven()).write(product, 48) is written  # type: ignore[arg-type]
