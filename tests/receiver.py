"""A receiver of webhooks on loopback, which can behave badly; and endpoints in the database that lead to it."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID, uuid4

import standardwebhooks
import svix

from orders.postgres.database import Connection
from orders.webhooks.secrets_sql import keep_secret
from orders.webhooks.signing import Sealing, SignatureKind, SigningKey, new_key
from tests.conftest import ask

SECRET = "a secret of the tests, long enough"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer(status: int, *headers: str, body: bytes = b"no") -> bytes:
    """A reply as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} Whatever", *headers, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass(frozen=True)
class Got:
    """A request as it arrived."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.message["data"])

    @property
    def event(self) -> tuple[str, int]:
        return self.data["order_id"], self.data["number"]


Behaviour = Callable[[Got], bytes | Awaitable[bytes | None] | None]
"""What is sent back. None: the connection is cut."""


class Receiver:
    """A server of raw HTTP/1.1. `got` has every request that arrived whole."""

    def __init__(self, behave: Behaviour = lambda _: OK) -> None:
        self.behave = behave
        self.got: list[Got] = []
        self.arrived = asyncio.Event()
        self.at_once = self.most_at_once = 0
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?from=orders"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def until(self, condition: Callable[[], object], within_s: float = 40) -> None:
        """Return once the condition holds. It is looked at after each request."""
        async with asyncio.timeout(within_s):
            while not condition():
                await self.arrived.wait()
                self.arrived.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._handlers.add(task := asyncio.current_task())  # type: ignore[arg-type]
        try:
            while True:
                got = await _read(reader)
                self.got.append(got)
                self.arrived.set()
                if not await self._answer(got, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._handlers.discard(task)  # type: ignore[arg-type]
            writer.transport.abort()

    async def _answer(self, got: Got, writer: asyncio.StreamWriter) -> bool:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            reply = self.behave(got)
            if reply is not None and not isinstance(reply, bytes):
                reply = await reply
        finally:
            self.at_once -= 1
            self.arrived.set()
        if reply is None:
            return False
        writer.write(reply)
        await writer.drain()
        return True


async def _read(reader: asyncio.StreamReader) -> Got:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    assert head[0].startswith("POST ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
    return Got(headers, await reader.readexactly(int(headers["content-length"])))


def add_webhook(connection: Connection, url: str, key: SigningKey | None = None, **columns: Any) -> UUID:
    """An enabled endpoint for all events of the feed, unless `columns` say otherwise."""
    webhook_id = uuid4()
    row = {"types": ["*"], "payload": "full", "ordering": "order", "position": 0, "created_by": "test", **columns}
    names = ", ".join(row)
    ask(
        connection,
        f"INSERT INTO webhooks (id, url, {names}) VALUES (%s, %s{', %s' * len(row)})",
        (str(webhook_id), url, *row.values()),
    )
    with connection.cursor() as cursor:
        keep_secret(cursor, webhook_id, key or new_key(SignatureKind.V1), Sealing(SECRET))
    return webhook_id


def require_signed(got: Got, secret: str) -> None:
    """Two verifiers that are not ours find the signature good, and not that of a changed body."""
    for verifier in (standardwebhooks.Webhook(secret), svix.Webhook(secret)):
        verifier.verify(got.body, got.headers)
        try:
            verifier.verify(got.body + b" ", got.headers)
        except (standardwebhooks.WebhookVerificationError, svix.WebhookVerificationError):
            continue
        raise AssertionError("a changed body was found good")


def signatures(got: Got) -> list[bytes]:
    """The signatures of a request, without their kinds."""
    return [base64.b64decode(one.split(",")[1]) for one in got.headers["webhook-signature"].split()]
