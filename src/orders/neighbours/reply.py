"""A neighbour's reply, read with bounds. Anything but JSON of a sane size is malformed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import Response

MAX_REPLY_BYTES = 1024 * 1024
"""Maximum size of a reply. A product, or a cart with the maximum number of lines, fits many times."""


class NotSent(Exception):
    """No connection was made. The request certainly had no effect."""


class CircuitOpen(NotSent):
    """The circuit breaker is open, because the neighbour kept failing. Nothing was sent."""


class NoAnswer(Exception):
    """The request was sent and no usable answer came (timeout, reset, 5xx). Its effect is unknown.

    `was_alone`: whether no other call to the neighbour was under way meanwhile.
    """

    was_alone = True


class TimedOut(NoAnswer):
    """The answer did not come in time."""


class MalformedReply(Exception):
    """The neighbour's answer breaks its contract."""


class TooLarge(MalformedReply):
    """The reply is larger than allowed."""


class MixedUp(MalformedReply):
    """The neighbour sent the answer to another question: another product, or another customer's cart."""


@dataclass(slots=True)
class Reply:
    """A neighbour's answer that is not a 5xx. `etag` is None if there is none.

    `was_alone`: no other call of ours was under way meanwhile. `is_proven`: the neighbour does not mix up calls.
    """

    status: int
    body: bytes
    etag: str | None
    was_alone: bool = True
    is_proven: bool = True

    def json(self, keep: Callable[[dict[str, Any]], bool] | None = None) -> Any:
        """The body as JSON. Objects that `keep` rejects become None, so that only a part of a large reply is held in
        memory.

        Raises MalformedReply if the body is not JSON, is nested too deep, has NaN or infinity, or has a name twice in
        one object.
        """

        try:
            text = self.body.decode(json.detect_encoding(self.body), "surrogatepass")
            return (_decoder(keep) if keep else _DECODER).decode(text)
        except (ValueError, RecursionError) as error:
            raise MalformedReply(f"the reply is not JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _distinct(members: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(members)
    if len(document) < len(members):
        raise ValueError("an object has two members of one name")
    return document


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_distinct)
"""The decoder of nearly all replies. Making one for each reply costs as much as decoding a product."""


def _decoder(keep: Callable[[dict[str, Any]], bool]) -> json.JSONDecoder:
    def read_object(members: list[tuple[str, Any]]) -> dict[str, Any] | None:
        document = _distinct(members)
        return document if keep(document) else None

    return json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=read_object)


def brief(value: Any) -> str:
    """The first characters of what a neighbour sent, for an error's sentence."""
    return repr(str(value)[:40])


def build_client(timeout_s: float) -> Client:
    """The HTTP client that both neighbours share. The caller has to close it.

    Redirects are not followed: a PUT must reach the configured address. Compressed replies are not requested: a small
    one could unpack to any size.
    """
    builder = ClientBuilder().timeout(timedelta(seconds=timeout_s)).connect_timeout(timedelta(seconds=timeout_s))
    builder = builder.follow_redirects(False).gzip(False).brotli(False).zstd(False).deflate(False)
    return builder.user_agent("orders").build()


async def read_body(response: Response, max_bytes: int) -> bytes:
    if _is_small(response, max_bytes):
        return bytes(await response.bytes())  # in one piece, which costs less CPU
    chunks: list[bytes] = []
    size = 0
    while (chunk := await response.body_reader.read_chunk()) is not None:
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(f"the reply is larger than {max_bytes} bytes")
        chunks.append(bytes(chunk))
    return b"".join(chunks)


def _is_small(response: Response, max_bytes: int) -> bool:
    """Whether the reply announces an allowed length, in the header that counts (RFC 9112, 6.3)."""
    announced = header(response, "content-length") or ""
    is_counted = announced.isdecimal() and header(response, "transfer-encoding") is None
    return is_counted and int(announced) <= max_bytes


def header(response: Response, name: str) -> str | None:
    """The value of a reply's header. The headers that we read are ASCII (RFC 9110). The library raises on others; we
    could not send those back anyway.
    """
    try:
        return response.get_header(name)
    except ValueError:
        return None


def was_not_sent(error: PyreqwestError) -> bool:
    """Whether no connection was made, so the request was not sent.

    The error's class does not tell. The library's ConnectError can also mean that a connection broke after the request
    was sent, and its ConnectTimeoutError that the answer did not come. The causes below the error do tell. If their
    words change, every error counts as sent, which is the safe side.
    """
    return "client error (Connect)" in _causes(error)


def reason(error: PyreqwestError) -> str:
    return (_causes(error) or [error.message])[-1]


def _causes(error: PyreqwestError) -> list[str]:
    return [str(cause["message"]) for cause in getattr(error, "details", {}).get("causes") or []]
