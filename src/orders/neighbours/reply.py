"""What a neighbour sends back, read with bounds: a reply of any other kind than JSON of a sane size is rubbish."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import Response

MAX_REPLY_BYTES = 1024 * 1024
"""Maximum size of a reply. A product, or a cart of the most lines that an order may have, fits many times."""


class NotSent(Exception):
    """No connection was made: the request has certainly had no effect."""


class CircuitOpen(NotSent):
    """The neighbour kept failing and is given a rest: nothing was sent."""


class NoAnswer(Exception):
    """The request was sent and no usable answer came (time-out, reset, 5xx): its effect is unknown.

    `was_alone`: whether no other call to the neighbour was under way meanwhile.
    """

    was_alone = True


class TimedOut(NoAnswer):
    """The answer did not come in time."""


class MalformedReply(Exception):
    """The neighbour answered something that its contract does not know."""


class TooLarge(MalformedReply):
    """The reply is larger than it may be."""


class MixedUp(MalformedReply):
    """The neighbour answered with somebody else's answer: another product, another customer's cart."""


@dataclass(slots=True)
class Reply:
    """A neighbour's answer that is not a 5xx. `etag` is None where there is none.

    `was_alone`: no other call of ours was under way meanwhile. `is_proven`: the neighbour does not mix up calls.
    """

    status: int
    body: bytes
    etag: str | None
    was_alone: bool = True
    is_proven: bool = True

    def json(self, keep: Callable[[dict[str, Any]], bool] | None = None) -> Any:
        """The body as JSON. Objects that `keep` does not want are None: of a large reply only a part is held in memory.

        Raises MalformedReply: not JSON, nested too deep, with a NaN, an infinity or a name that is twice in one object.
        """

        def read_object(members: list[tuple[str, Any]]) -> dict[str, Any] | None:
            document = _distinct(members)
            return document if keep is None or keep(document) else None

        try:
            return json.loads(
                self.body, parse_constant=_refuse_constant, object_pairs_hook=read_object if keep else _distinct
            )
        except (ValueError, RecursionError) as error:
            raise MalformedReply(f"the reply is not JSON: {error}") from None


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


async def read_body(response: Response, max_bytes: int) -> bytes:
    if _is_small(response, max_bytes):
        return bytes(await response.bytes())  # in one go, which costs less CPU
    chunks: list[bytes] = []
    size = 0
    while (chunk := await response.body_reader.read_chunk()) is not None:
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(f"the reply is larger than {max_bytes} bytes")
        chunks.append(bytes(chunk))
    return b"".join(chunks)


def _is_small(response: Response, max_bytes: int) -> bool:
    """Whether the reply says that it is not too long, in the header that counts then (RFC 9112, 6.3)."""
    announced = header(response, "content-length") or ""
    is_counted = announced.isdecimal() and header(response, "transfer-encoding") is None
    return is_counted and int(announced) <= max_bytes


def header(response: Response, name: str) -> str | None:
    """The headers we read are ASCII (RFC 9110); the library raises on others, which we could not give back anyway."""
    try:
        return response.get_header(name)
    except ValueError:
        return None


def was_not_sent(error: PyreqwestError) -> bool:
    """Whether no connection was made. The class does not tell: the library's ConnectError is also a connection that
    broke after the request was sent, its ConnectTimeoutError also an answer that did not come. What lies below does;
    should it ever be worded otherwise, everything counts as sent, which is the safe side.
    """
    return "client error (Connect)" in _causes(error)


def reason(error: PyreqwestError) -> str:
    return (_causes(error) or [error.message])[-1]


def _causes(error: PyreqwestError) -> list[str]:
    return [str(cause["message"]) for cause in getattr(error, "details", {}).get("causes") or []]
