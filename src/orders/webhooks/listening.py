"""What `orders listen` does: reads the stream of a running service, and sends each event to a program of a developer,
as a webhook would be sent. Both may come and go meanwhile.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import NetworkError, PyreqwestError
from pyreqwest.response import Response

from orders.version import VERSION
from orders.webhooks.body import body_of_event
from orders.webhooks.model import TYPE_PREFIX
from orders.webhooks.signing import SigningKey, signature_headers

CONNECT_S = 5.0
"""Timeout for connecting to the service."""

SILENT_S = 40.0
"""Longest silence of a stream that is still alive: it says something every 15 s."""

DELIVERY_S = 15.0
"""Timeout for a delivery, as webhooks have it."""

AGAIN_S = 1.0
"""Pause before the service, or a program that refuses connections, is tried again."""

MAX_ATTEMPTS = 5
"""Maximum number of attempts to connect to the program: it may be starting again."""

_COPIED = ("customer_id", "channel", "actor", "reason", "before", "after", "details")


class Refused(Exception):
    """The service refuses what was asked. The message is a sentence for a person."""


class _Away(Exception):
    """The service can't answer now."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which events are wanted, from which service. `after` is None: what happens from now on."""

    server: str
    key: str | None
    types: str
    after: int | None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of requests to the service."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


class Listening:
    """Reads on from a position, and delivers one event after the other. `say` gets a line about each."""

    def __init__(self, asked: Asked, to: str, signing: SigningKey, say: Callable[[str], None]) -> None:
        self._asked = asked
        self._to = to
        self._signing = signing
        self._say = say
        self._position = asked.after

    async def run(self) -> None:
        """Go on until cancelled. Raises Refused."""
        async with _client(SILENT_S) as service, _client(DELIVERY_S) as program:
            while True:
                try:
                    await self._follow(service, program)
                except (PyreqwestError, _Away) as error:
                    self._say(f"the service is away: {error}")
                await asyncio.sleep(AGAIN_S)

    async def _follow(self, service: Client, program: Client) -> None:
        position = {} if self._position is None else {"after": self._position}
        url = f"{self._asked.server}/events/stream?{urlencode({'types': self._asked.types, **position})}"
        # Without a limit the client would wait until it has 64 kB.
        request = service.get(url).headers(self._asked.headers).streamed_read_buffer_limit(0)
        async with request.build_streamed() as response:
            _require_answer(response)
            if response.status != 200:
                raise Refused(await _why(response))
            async for block in _blocks(response):
                if data := block.get("data"):
                    event = json.loads(data)
                    body = _body(event, await self._order(service, event))
                    await self._deliver(program, event, body)
                if block.get("id"):
                    self._position = int(block["id"])

    async def _order(self, service: Client, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """The order as of the event. None if the key may not read orders."""
        url = f"{self._asked.server}/orders/{event['order_id']}?at={event['number']}"
        response = await service.get(url).headers(self._asked.headers).build().send()
        _require_answer(response)
        return await response.json() if response.status == 200 else None

    async def _deliver(self, program: Client, event: Mapping[str, Any], body: bytes) -> None:
        began, result = time.monotonic(), "not delivered: nothing answers there"
        for attempt in range(1, MAX_ATTEMPTS + 1):
            began = time.monotonic()
            headers = signature_headers(event["id"], int(time.time()), body, [self._signing])
            try:
                result = str(await self._post(program, headers, body))
                break
            except NetworkError:
                if attempt < MAX_ATTEMPTS:
                    await asyncio.sleep(AGAIN_S)
            except PyreqwestError as error:
                result = f"not delivered: {error}"
                break
        ms = round((time.monotonic() - began) * 1000)
        self._say(f"{event['position']} {event['type']} {event['id']}: {result}, {ms} ms")

    async def _post(self, program: Client, headers: dict[str, str], body: bytes) -> int:
        sent = {"content-type": "application/json", "user-agent": f"orders/{VERSION}", **headers}
        async with program.post(self._to).headers(sent).body_bytes(body).build_streamed() as response:
            return response.status


def _require_answer(response: Response) -> None:
    if response.status >= 500:
        raise _Away(f"it answers {response.status}")


def _client(silent_s: float) -> Client:
    builder = ClientBuilder().connect_timeout(timedelta(seconds=CONNECT_S)).read_timeout(timedelta(seconds=silent_s))
    return builder.follow_redirects(False).build()


def _body(event: Mapping[str, Any], order: dict[str, Any] | None) -> bytes:
    """The body that a webhook would get, without private notes, whatever the key may see."""
    row = {
        "type": event["type"].removeprefix(TYPE_PREFIX),
        "at": event["at"],
        "position": event["position"],
        "order_id": event["order_id"],
        "number": event["number"],
        "order_url": f"/orders/{event['order_id']}?at={event['number']}",
        **{name: event[name] for name in _COPIED},
    }
    for members in (row["before"], row["after"], order):
        if members and (members.get("notes") or {}).get("private"):
            members["notes"]["private"] = None
    return body_of_event(row, order)


async def _blocks(response: Response) -> AsyncIterator[dict[str, str]]:
    """The blocks of a stream of Server-Sent Events. A block that is not complete does not count."""
    block: dict[str, str] = {}
    async for line in _lines(response):
        name, _, value = line.partition(":")
        if not line:
            yield block
            block = {}
        elif name:
            value = value.removeprefix(" ")
            block[name] = f"{block[name]}\n{value}" if name == "data" and name in block else value


async def _lines(response: Response) -> AsyncIterator[str]:
    rest = bytearray()
    while (chunk := await response.body_reader.read_chunk()) is not None:
        rest += chunk
        *lines, last = rest.split(b"\n")
        for line in lines:
            yield line.decode()
        rest = bytearray(last)


async def _why(response: Response) -> str:
    """What the service says, as a sentence."""
    try:
        document = json.loads(bytes(await response.bytes()))
        return f"The service answers {response.status}: {document['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"The service answers {response.status}. Is this an order service, of a version that has a stream?"
