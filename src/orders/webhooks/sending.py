"""Sends one message to one endpoint: a signed POST, and the beginning of the reply.

Every reply is distrusted: it may be slow, endless, packed, or rubbish.
"""

import asyncio
import contextlib
import functools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pyreqwest.exceptions import DecodeError, NetworkError, PyreqwestError, RequestTimeoutError
from pyreqwest.http import Url
from pyreqwest.response import Response

from orders.webhooks.addresses import Allowed
from orders.webhooks.clients import Clients
from orders.webhooks.model import Message, Result
from orders.webhooks.resolving import NotSent, Resolver
from orders.webhooks.schedule import retry_after_s
from orders.webhooks.signing import SigningKey, signature_headers
from orders.webhooks.urls import Target, as_address, target_of

READ_BYTES = 4096
"""Maximum number of bytes of a reply that are read."""

KEPT_CHARACTERS = 1_000
"""Maximum number of characters of a reply that are kept."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it was sent, and how that ended. `headers` are empty if nothing was sent."""

    result: Result
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back. `error` says in a word why it is no success; None if the status says so."""

    status: int | None = None
    error: str | None = None
    reply: str | None = None
    retry_after: str | None = None


class Sender:
    """Sends messages to endpoints that may be sent to. `timeout_s` is for all of it: name, connection and reply."""

    def __init__(self, allowed: Allowed, timeout_s: float, version: str) -> None:
        self._resolver = Resolver(allowed)
        self._clients = Clients(timeout_s)
        self._timeout_s = timeout_s
        self._constant = {
            "content-type": "application/json",
            "user-agent": f"orders/{version}",
            "accept-encoding": "identity",
        }

    async def close(self) -> None:
        """Close all connections."""
        self._resolver.close()
        await self._clients.close()

    async def send(self, url: str, message: Message, body: bytes, keys: Sequence[SigningKey]) -> Sent:
        """Send the message, signed with these keys. Raises nothing: the result says what went wrong."""
        at, began = datetime.now(UTC), time.monotonic()
        headers = self._constant | signature_headers(message.id, int(at.timestamp()), body, keys)
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                answer = await self._post(url, headers, body, message.attempt, limit)
        except TimeoutError:
            answer = _Answer(error="timed_out")
        except NotSent as reason:
            answer, headers = _Answer(error=reason.error), {}
        ms = round((time.monotonic() - began) * 1000)
        pause_s = retry_after_s(answer.retry_after, datetime.now(UTC))
        result = Result(message, at, ms, answer.status, answer.error, answer.reply, pause_s)
        return Sent(result, headers, body)

    async def _post(
        self, url: str, headers: dict[str, str], body: bytes, attempt: int, limit: asyncio.Timeout
    ) -> _Answer:
        target, host = _read(url)
        addresses = await self._resolver.addresses(target)
        # A client knows one address. Another attempt tries another one.
        client = await self._clients.get(host, addresses[(attempt - 1) % len(addresses)], target.port)
        # No buffer: the status is there before the reply has come.
        request = client.post(url).headers(headers).body_bytes(body).streamed_read_buffer_limit(0)
        try:
            async with request.build_streamed() as response:
                return await _read_answer(response, limit)
        except PyreqwestError as error:
            return _Answer(error=_word(error, target))


@functools.lru_cache(maxsize=1000)
def _read(url: str) -> tuple[Target, str]:
    """The target of the URL, and its host as the client reads it. Raises NotSent if the client would read another host
    out of it than we do.
    """
    try:
        target, host = target_of(url), (Url(url).host_str or "").strip("[]")
    except ValueError:
        raise NotSent("bad_url") from None
    if as_address(host) != target.address or (target.address is None and host.rstrip(".") != target.host):
        raise NotSent("bad_url")
    return target, host


async def _read_answer(response: Response, limit: asyncio.Timeout) -> _Answer:
    """The answer. Once its status is there, it counts, even if the reply never ends."""
    until = limit.when()
    limit.reschedule(None)
    status = response.status
    reply = bytearray()
    with contextlib.suppress(PyreqwestError, TimeoutError):
        async with asyncio.timeout_at(until):
            while len(reply) < READ_BYTES and (chunk := await response.body_reader.read_chunk()) is not None:
                reply += chunk
    error = "redirected" if 300 <= status < 400 else None
    return _Answer(status, error, _text(bytes(reply[:READ_BYTES])), response.get_header("retry-after"))


def _text(reply: bytes) -> str | None:
    """The beginning of the reply as text that can be stored. None if it is empty."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", reply.decode(errors="replace"))[:KEPT_CHARACTERS] or None


def _word(error: PyreqwestError, target: Target) -> str:
    """Why no answer came, as a short word."""
    causes = " ".join(cause["message"] for cause in (getattr(error, "details", None) or {}).get("causes") or ())
    if isinstance(error, RequestTimeoutError):
        return "timed_out"
    if "Connection refused" in causes:
        return "connection_refused"
    if "(Connect)" in causes:
        return "tls_failed" if target.is_https and "tcp connect error" not in causes else "not_connected"
    if isinstance(error, DecodeError):
        return "bad_answer"
    return "connection_lost" if isinstance(error, NetworkError) else "not_sent"
