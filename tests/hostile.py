"""What one hostile client sends. `python -m tests.hostile ATTACK HOST PORT SECONDS '{"order": …}'` attacks for so long,
and prints how often it tried: in a process of its own, so that its Python does not slow those whom it attacks beside.
"""

import asyncio
import contextlib
import json
import resource
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

MAX_BODY_BYTES = 256 * 1024
"""Maximum body of most operations, by the issue's table. An attack stays just below what is refused, or goes beyond."""

MAX_BULK_BYTES = 1024 * 1024
"""Maximum body of bulk operations, by the same table."""

SENDERS = 16
"""Connections that send one request after the other: more than there are database threads, fewer than a browser's limit
times three.
"""


@dataclass
class Target:
    """Whom to attack, what is there (an order's ID, a product's), and how often something was sent."""

    host: str
    port: int
    seconds: float
    known: dict[str, Any]
    sent_count: int = 0


Attack = Callable[[Target], Awaitable[None]]
ATTACKS: dict[str, Attack] = {}

POST_JSON = b"POST /orders/42 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def attack(name: str) -> Callable[[Attack], Attack]:
    def add(function: Attack) -> Attack:
        ATTACKS[name] = function
        return function

    return add


def request(method: str, path: str, body: bytes = b"", *headers: str, kind: str = "application/json") -> bytes:
    """A whole request, after whose answer the connection is closed."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


async def repeat(target: Target, requests: Iterable[bytes], senders: int = SENDERS) -> None:
    """Send these again and again over so many connections, reading the answers."""
    several = list(requests)

    async def sender(first: int) -> None:
        at = first
        while True:
            with contextlib.suppress(OSError):
                await _send(target, several[at % len(several)])
            at += 1

    await asyncio.gather(*(sender(n) for n in range(senders)))


async def _send(target: Target, whole: bytes) -> None:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        writer.write(whole)
        target.sent_count += 1
        while await reader.read(1 << 20):
            pass
    finally:
        writer.close()


async def hold(target: Target, count: int, start: bytes, more: bytes = b"", pause_s: float = 0.2) -> None:
    """Keep so many connections open; on each `start` is sent, then `more` with pauses; nothing is read."""

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                await _drip(target, start, more, pause_s)
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(one() for _ in range(count)))


async def _drip(target: Target, start: bytes, more: bytes, pause_s: float) -> None:
    reader, writer = await asyncio.open_connection(target.host, target.port, limit=1)
    target.sent_count += 1
    try:
        writer.write(start)
        while not reader.at_eof():
            await asyncio.sleep(pause_s)
            writer.write(more)
            await writer.drain()
    finally:
        writer.transport.abort()


async def pour(target: Target, count: int, start: bytes, pieces: Callable[[], Iterable[bytes]]) -> None:
    """Send as fast as it is taken, on so many connections; nothing is read."""

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                await _pour(target, start, pieces())

    await asyncio.gather(*(one() for _ in range(count)))


async def _pour(target: Target, start: bytes, pieces: Iterable[bytes]) -> None:
    _, writer = await asyncio.open_connection(target.host, target.port)
    target.sent_count += 1
    try:
        writer.write(start)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    finally:
        writer.transport.abort()


def unknown_members(size: int) -> bytes:
    """A JSON object of so many bytes, of members that nobody knows."""
    return b"{" + b",".join(b'"%05x":0' % n for n in range(size // 10 - 1)) + b"}"


def nested(size: int) -> bytes:
    return b'{"metadata":' + b"[" * (size // 2 - 10) + b"]" * (size // 2 - 10) + b"}"


def huge_numbers(size: int) -> bytes:
    number = b"9" * 4000
    return b'{"metadata":{"a":[' + b",".join([number] * (size // 4001 - 1)) + b"]}}"


def doubles(count: int) -> bytes:
    """Short as sent; PostgreSQL writes each out in 309 digits."""
    return b'{"metadata":{"a":[' + b",".join([b"1e308"] * count) + b"]}}"


# Connections


@attack("2,000 connections that send nothing")
async def silent(target: Target) -> None:
    await hold(target, 2000, b"", pause_s=1)


@attack("2,000 connections that send headers slowly")
async def slow_heads(target: Target) -> None:
    await hold(target, 2000, b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X-A: b\r\n", pause_s=1)


@attack("2,000 connections that send bodies slowly")
async def slow_bodies(target: Target) -> None:
    head = POST_JSON + b"Content-Length: 9999\r\n\r\n"
    await hold(target, 2000, head + b" " * 100, b" ", pause_s=1)


@attack("1,000 bodies that lack their last byte")
async def nearly_whole_bodies(target: Target) -> None:
    size = MAX_BODY_BYTES - 1
    head = POST_JSON + b"Content-Length: %d\r\n\r\n"
    await hold(target, 1000, head % size + b" " * (size - 1), pause_s=5)


@attack("connections that come and go")
async def coming_and_going(target: Target) -> None:
    await repeat(target, [b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"], senders=64)


@attack("a header of 64 MB")
async def huge_header(target: Target) -> None:
    piece = b"a" * (1 << 20)
    await pour(target, 4, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ", lambda: (piece for _ in range(64)))


@attack("64 MB of small headers")
async def many_headers(target: Target) -> None:
    piece = b"a:b\r\n" * 20_000
    await pour(target, 8, b"GET / HTTP/1.1\r\nHost: localhost\r\n", lambda: (piece for _ in range(640)))


@attack("a body without end, for a GET")
async def endless_body(target: Target) -> None:
    piece = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    start = b"GET /workflow HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    await pour(target, 8, start, lambda: (piece for _ in range(160_000)))


@attack("bodies in chunks of one byte")
async def tiny_chunks(target: Target) -> None:
    start = POST_JSON
    piece = b"1\r\n \r\n" * 10_000
    await pour(target, 50, start + b"Transfer-Encoding: chunked\r\n\r\n", lambda: (piece for _ in range(100)))


@attack("chunk extensions without end")
async def chunk_extensions(target: Target) -> None:
    start = b"POST /orders/42 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;a="
    await pour(target, 8, start, lambda: (b"a" * 65536 for _ in range(10_000)))


@attack("10,000 requests sent ahead, on each of 50 connections")
async def pipelined(target: Target) -> None:
    whole = b"GET /workflow HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10_000
    await pour(target, 50, whole, lambda: [b""])


@attack("rubbish")
async def rubbish(target: Target) -> None:
    await repeat(target, [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])


@attack("100 clients that don't read a long list")
async def unread_lists(target: Target) -> None:
    whole = b"GET /orders?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    await hold(target, 100, whole * 4, pause_s=1)


@attack("200 clients that don't read the API's document")
async def unread_documents(target: Target) -> None:
    await hold(target, 200, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 8, pause_s=1)


# The table, by row


@attack("13,853 parameters")
async def many_parameters(target: Target) -> None:
    names = "&".join(f"{n:x}=" for n in range(0x1000, 0x1000 + 4500))  # as many as fit into a head
    paths = ("/reports/statuses", "/orders.csv", "/orders", "/reports/sales")
    await repeat(target, [request("GET", f"{path}?{names}") for path in paths])


@attack("numbers that are stored longer than they were sent")
async def long_when_stored(target: Target) -> None:
    path = f"/orders/{target.known['order']}"
    patch = request("PATCH", path, doubles(1100), kind="application/merge-patch+json")
    reads = [request("GET", each) for each in (f"{path}?at=1", path, f"{path}/events", "/orders?limit=1000")]
    await repeat(target, [patch, *reads])


@attack("bulk orders of products that nobody has")
async def unknown_products(target: Target) -> None:
    def bulk(first: int) -> bytes:
        ids = iter(range(first, first + 2000))
        orders = [
            {"customer_id": 42 + n, "items": [{"product_id": next(ids), "quantity": 1} for _ in range(500)]}
            for n in range(4)
        ]
        return json.dumps({"orders": orders}, separators=(",", ":")).encode()

    paths = ("/orders:batch", "/orders:batch?dry_run=true")
    await repeat(
        target, [request("POST", path, bulk(10**12 + n * 2000)) for n in range(8) for path in paths], senders=4
    )


@attack("counts of what no index finds")
async def totals(target: Target) -> None:
    await repeat(target, [request("GET", "/orders?metadata[a]=b&include_total=true&limit=1")])


@attack("notes that are changed again and again")
async def many_changes(target: Target) -> None:
    path = f"/orders/{target.known['order']}"

    def patch(letter: str) -> bytes:
        notes = {"notes": {"public": letter * 9000, "private": letter * 9000}}
        return request("PATCH", path, json.dumps(notes).encode(), kind="application/merge-patch+json")

    await repeat(target, [*map(patch, "abcdefgh"), request("GET", f"{path}/events")])


@attack("carts that are ordered again and again")
async def carts(target: Target) -> None:
    await repeat(target, [request("POST", f"/orders/{n}") for n in range(1, 65)])


# Every operation that there is


def of_operation(method: str, path: str, kind: str) -> list[bytes]:
    """The largest requests of some kind that this operation takes, or nearly takes."""
    size = MAX_BULK_BYTES if path.endswith(":batch") else MAX_BODY_BYTES
    if kind == "query":
        long = "&".join(f"p{n:02}={quote(chr(0x1D49C))}{'x' * 140}" for n in range(50))
        return [request(method, f"{path}?{query}") for query in (long, "&".join(["status=paid"] * 50))]
    if method == "GET":
        return [request(method, path)]
    label = "application/merge-patch+json" if method == "PATCH" else "application/json"
    body = {"members": unknown_members, "nested": nested, "numbers": huge_numbers}[kind](size)
    return [request(method, path, body, kind=label)]


KINDS = ("query", "members", "nested", "numbers")
"""The kinds of `of_operation`."""


def _attack_called(name: str) -> Attack:
    if name in ATTACKS:
        return ATTACKS[name]
    kinds, method, path = name.split(" ", 2)

    async def on_operation(target: Target) -> None:
        await repeat(target, [each for kind in kinds.split(",") for each in of_operation(method, path, kind)])

    return on_operation


async def _run(name: str, target: Target) -> None:
    """The time counts from when the first request is out: a machine may take long to get there."""
    attacking = asyncio.create_task(_attack_called(name)(target))
    while not target.sent_count and not attacking.done():
        await asyncio.sleep(0.01)
    await asyncio.wait([attacking], timeout=target.seconds)
    if attacking.done():
        attacking.result()
        raise RuntimeError(f"{name}: it ended by itself")
    attacking.cancel()
    await asyncio.wait([attacking])
    print(target.sent_count, flush=True)


def main() -> None:
    name, host, port, seconds, known = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    target = Target(host, int(port), float(seconds), json.loads(known))
    asyncio.run(_run(name, target))


if __name__ == "__main__":
    main()
