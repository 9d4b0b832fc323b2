"""HTTP to a neighbour: GET and PUT with a time-out, a bounded reply, retries for GET, rest for who keeps failing.

What the reply means is for `catalog` and `cart`; here is only whether there was one.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import stamina
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState
from purgatory.service._async.circuitbreaker import AsyncCircuitBreaker
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import Response

MAX_CALLS = 64
"""Calls to one neighbour that are under way at once: connections are not free for it either."""

MAX_REPLY_BYTES = 1024 * 1024
"""A product, or a cart of the most lines that an order may have, fits many times. Anything larger is rubbish."""


class NotSent(Exception):
    """No connection was made: the request has certainly had no effect."""


class Resting(NotSent):
    """The neighbour kept failing and is given a rest: nothing was sent."""


class NoAnswer(Exception):
    """The request was sent and no usable answer came (time-out, reset, 5xx): its effect is unknown."""


class Rubbish(Exception):
    """The neighbour answered something that its contract does not know."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A neighbour's answer that is not a 5xx. `etag` is None where there is none."""

    status: int
    body: bytes
    etag: str | None

    def json(self) -> Any:
        """The body as JSON. Raises Rubbish: not JSON, nested too deep, with a NaN, an infinity or a name that is twice
        in one object.
        """
        try:
            return json.loads(self.body, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            raise Rubbish(f"the reply is not JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _distinct(members: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(members)
    if len(document) < len(members):
        raise ValueError("an object has two members of one name")
    return document


def brief(value: Any) -> str:
    """What a neighbour sent, for an error's sentence."""
    return repr(str(value)[:40])


def build_client(timeout_s: float) -> Client:
    """The HTTP client that both neighbours share. To be closed by whoever made it.

    Redirects are not followed (a PUT must reach the address that was configured) and compressed replies are not
    asked for (a small one could unpack to any size).
    """
    builder = ClientBuilder().timeout(timedelta(seconds=timeout_s)).connect_timeout(timedelta(seconds=timeout_s))
    builder = builder.follow_redirects(False).gzip(False).brotli(False).zstd(False).deflate(False)
    return builder.user_agent("orders").build()


class Neighbour:
    """One neighbouring service: its address, the shared client, and the circuit breaker that gives it a rest."""

    def __init__(self, name: str, base_url: str, client: Client, breaker_failures: int, breaker_rest_s: float) -> None:
        self.name = name
        self.base_url = base_url
        self._client = client
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._breakers = AsyncCircuitBreakerFactory(default_threshold=breaker_failures, default_ttl=breaker_rest_s)
        self._breaker: AsyncCircuitBreaker | None = None

    async def get(self, path: str, max_bytes: int = MAX_REPLY_BYTES) -> Reply:
        """GET, tried up to three times with growing, jittered pauses.

        Raises NotSent, Resting or NoAnswer; Rubbish where the reply is larger than `max_bytes`.
        """
        try:
            return await self._attempt("GET", path, max_bytes=max_bytes)
        except Resting:
            raise
        except (NotSent, NoAnswer):
            # Only now: passing every call through the retrier cost as much CPU as the call itself (77 µs, measured).
            retry = stamina.AsyncRetryingCaller(attempts=2, wait_initial=0.05, wait_max=0.5, timeout=None)
            return await retry.on(_worth_a_retry)(self._attempt, "GET", path, max_bytes=max_bytes)

    async def put(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None, not_after: float = float("inf")
    ) -> Reply:
        """PUT, sent once, and not at all once the event loop's time is `not_after`.

        Raises NotSent, Resting, NoAnswer or Rubbish: only the caller knows whether it may be repeated.
        """
        headers = {"Content-Type": "application/json", **(headers or {})}
        return await self._attempt("PUT", path, body, headers, not_after)

    async def _attempt(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        not_after: float = float("inf"),
        max_bytes: int = MAX_REPLY_BYTES,
    ) -> Reply:
        try:
            self._breaker = self._breaker or await self._breakers.get_breaker(self.name)
            async with self._slots, self._breaker:
                if asyncio.get_running_loop().time() >= not_after:
                    raise NotSent(f"it is too late for {method} {path}")
                return await self._send(method, path, body, headers or {}, max_bytes)
        except OpenedState:
            raise Resting(f"{self.name} keeps failing and is given a rest") from None

    async def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str], max_bytes: int) -> Reply:
        request = self._client.request(method, f"{self.base_url}{path}").headers(headers)
        try:
            async with (request.body_bytes(body) if body else request).build_streamed() as response:
                reply = Reply(response.status, await _read(response, max_bytes), _header(response, "etag"))
        except PyreqwestError as error:
            if was_not_sent(error):
                raise NotSent(f"{self.name} can't be reached: {_reason(error)}") from None
            raise NoAnswer(f"{self.name} did not answer {method} {path}: {_reason(error)}") from None
        if reply.status >= 500 or reply.status == 408:
            raise NoAnswer(f"{self.name} answered {reply.status} to {method} {path}")
        return reply


async def _read(response: Response, max_bytes: int) -> bytes:
    if _is_small(response, max_bytes):
        return bytes(await response.bytes())  # in one go, which costs less CPU
    chunks: list[bytes] = []
    size = 0
    while (chunk := await response.body_reader.read_chunk()) is not None:
        size += len(chunk)
        if size > max_bytes:
            raise Rubbish(f"the reply is larger than {max_bytes} bytes")
        chunks.append(bytes(chunk))
    return b"".join(chunks)


def _is_small(response: Response, max_bytes: int) -> bool:
    """Whether the reply says that it is not too long, in the header that counts then (RFC 9112, 6.3)."""
    announced = _header(response, "content-length") or ""
    is_counted = announced.isdecimal() and _header(response, "transfer-encoding") is None
    return is_counted and int(announced) <= max_bytes


def _header(response: Response, name: str) -> str | None:
    """The headers we read are ASCII (RFC 9110); the library raises on others, which we could not give back anyway."""
    try:
        return response.get_header(name)
    except ValueError:
        return None


def _worth_a_retry(error: Exception) -> bool:
    return isinstance(error, NotSent | NoAnswer) and not isinstance(error, Resting)


def was_not_sent(error: PyreqwestError) -> bool:
    """Whether no connection was made. The class does not tell: the library's ConnectError is also a connection that
    broke after the request was sent, its ConnectTimeoutError also an answer that did not come. What lies below does;
    should it ever be worded otherwise, everything counts as sent, which is the safe side.
    """
    return "client error (Connect)" in _causes(error)


def _reason(error: PyreqwestError) -> str:
    return (_causes(error) or [error.message])[-1]


def _causes(error: PyreqwestError) -> list[str]:
    return [str(cause["message"]) for cause in getattr(error, "details", {}).get("causes") or []]
