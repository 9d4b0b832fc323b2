"""A catalog and a cart service that cost little: one process, HTTP read by httptools, no framework.

`python -m bench.neighbours PORT`. `PUT /reset` with `{"products": 10000, "quantity": 1000000, "delay_s": 0.02}` begins
anew. `GET /calls` counts the calls for products so far. No customer has a cart here.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import httptools
import uvloop

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
NAME = "Whispers of the Night"
PRICE = 10


class Shelf:
    """The products, which differ only in their stock, and the delay of each answer."""

    def __init__(self) -> None:
        self.stock: dict[int, int] = {}
        self.delay_s = 0.0
        self.calls = 0

    def reset(self, products: int, quantity: int, delay_s: float) -> None:
        """Begin anew with the products 1 … `products`, with this quantity each."""
        self.stock = dict.fromkeys(range(1, products + 1), quantity)
        self.delay_s = delay_s

    def answer(self, method: bytes, path: bytes, body: bytes) -> bytes:
        """The reply's JSON."""
        if path.startswith(b"/products/"):
            self.calls += 1
            product_id = int(path[10:])
            if product_id not in self.stock:
                return b'"product not found"'
            if method == b"PUT":
                self.stock[product_id] = json.loads(body)["quantity"]
            return b'{"product_detail":{"id":%d,"name":"%b","price":%d,"quantity":%d}}' % (
                product_id,
                NAME.encode(),
                PRICE,
                self.stock[product_id],
            )
        if path == b"/reset":
            self.reset(**json.loads(body))
        if path in (b"/reset", b"/calls"):
            return b'{"calls":%d}' % self.calls
        return b'"no active cart"'


class Connection(asyncio.Protocol):
    """One client's connection. Requests are answered one after the other."""

    def __init__(self, shelf: Shelf, call_later: Callable[..., Any]) -> None:
        self._shelf = shelf
        self._call_later = call_later
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        """Answer the request. A slow catalog's delay comes first, and the work is done at its end."""
        self._is_last = not self._parser.should_keep_alive()
        if self._shelf.delay_s and self._path.startswith(b"/products/"):
            self._call_later(self._shelf.delay_s, self._respond, self._parser.get_method())
        else:
            self._respond(self._parser.get_method())

    def _respond(self, method: bytes) -> None:
        body = self._shelf.answer(method, self._path, self._body)
        if not self._transport.is_closing():  # a load that has ended waits for no answer
            self._transport.write(OK % (len(body), body))
        if self._is_last:
            self._transport.close()


async def serve(port: int) -> None:
    """Listen until the process is ended."""
    loop = asyncio.get_running_loop()
    shelf = Shelf()
    server = await loop.create_server(
        lambda: Connection(shelf, loop.call_later), "127.0.0.1", port, backlog=1024, reuse_address=True
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
