"""What a neighbour that is out of order may send: documents that are nearly right, and replies that are hardly HTTP."""

import functools
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

from tests.raw import Pieces, reply


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


_NUMBERS = [
    b"0", b"1", b"-1", b"-0", b"5.0", b"5.5", b"1e3", b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity", b"01",
    b"+5", b"0x5", b"9223372036854775807", b"9223372036854775808", b"1" + b"0" * 400, b"1" + b"0" * 5000,
]  # fmt: skip
_TEXTS = [
    b'""', b'"x"', b'"5"', b'"a\\u0000b"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"a\x00b"', b'"\x01"', b'"\xff\xfe"',
    b'"\xed\xa0\x80"', b'"' + b"x" * 10_000 + b'"', b'"' + b"x" * 10_001 + b'"', b"'x'", b'"x',
]  # fmt: skip
_OTHERS = [
    b"null", b"true", b"false", b"nul", b"undefined", b"", b"[]", b"{}", b"[5]", b'{"quantity": 5}',
    b'{"a": 1, "a": 2}', nested(50), nested(150), nested(5000),
]  # fmt: skip
VALUES = [*_NUMBERS, *_TEXTS, *_OTHERS]
"""Values that are wrong in most places, and here and there a right one."""

_SOME_VALUE = st.sampled_from(VALUES) | st.one_of(
    st.integers().map(lambda n: str(n).encode()),
    st.text().map(lambda text: json.dumps(text).encode()),
    st.text().map(lambda text: json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@st.composite
def objects(draw: st.DrawFn, fields: Mapping[str, Any]) -> bytes:
    """A JSON object with these fields, of which up to two are replaced, dropped, given twice or joined by another."""
    members = [(name, json.dumps(value).encode()) for name, value in fields.items()]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(members) - 1)) if members else 0
        name = members[at][0] if members else "id"
        change = draw(st.sampled_from(["replace", "replace", "drop", "twice", "add"]))
        if change in ("replace", "drop"):
            members = members[:at] + members[at + 1 :]
        if change != "drop":
            members.insert(at, ("more" if change == "add" else name, draw(_SOME_VALUE)))
    return written(members)


def written(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A JSON object, be its values JSON or not."""
    return b"{" + b", ".join(b'"%s": %s' % (name.encode(), value) for name, value in members) + b"}"


def with_every_wrong_value(fields: Mapping[str, Any]) -> Iterator[bytes]:
    """The object, once for each value in the place of each field's."""
    right = {name: json.dumps(value).encode() for name, value in fields.items()}
    for name in fields:
        for value in VALUES:
            yield written({**right, name: value}.items())


@st.composite
def documents(draw: st.DrawFn, inner: st.SearchStrategy[bytes], *envelopes: str) -> bytes:
    """`inner`, bare or in an envelope (or in two, or in a list), whole or cut off or with something around it."""
    text = draw(inner)
    for envelope in draw(st.lists(st.sampled_from(envelopes), max_size=2)):
        text = b'{"%s": %s}' % (envelope.encode(), text)
    around = draw(st.sampled_from(["nothing"] * 6 + ["list", "cut", "before", "after", "utf-16"]))
    if around == "cut":
        return text[: draw(st.integers(0, len(text)))]
    odd = draw(st.sampled_from([b" ", b"\n", b"\xef\xbb\xbf", b"\x00", b"{}", b"<html>", b")]}',"]))
    return {
        "nothing": text, "list": b"[" + text + b"]", "before": odd + text, "after": text + odd,
        "utf-16": text.decode("utf-8", "replace").encode("utf-16", "surrogatepass"),
    }[around]  # fmt: skip


ANYTHING = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode())


def delivered(body: bytes) -> dict[str, Pieces]:
    """Ways to send `body` that a client has to understand."""
    until_close = [b"HTTP/1.1 200 OK\r\n\r\n", body]
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part]
    return {
        "whole": reply(body),
        "until the end": until_close,
        "HTTP/1.0": [b"HTTP/1.0 200 OK\r\n\r\n", body],
        "in chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"],
        "after others": [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", *reply(body)],
        "as a page": reply(body, "Content-Type: text/html; charset=utf-7"),
    }


def _head(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")


def broken(body: bytes) -> dict[str, Pieces]:
    """Ways to send `body` of which no client should make anything."""
    zipped = gzip.compress(body)
    return {
        "nothing": [],
        "silence": [5.0],
        "no HTTP": [body],
        "half a head": [b"HTTP/1.1 200 OK\r\nContent-Le"],
        "half a status": [b"HTTP/1.1 20"],
        "another protocol": [b"SSH-2.0-OpenSSH_9.2\r\n"],
        "status 99999": [_head(status="99999 OK"), body],
        "status 999": reply(body, status="999 OK"),
        "no end of headers": [_head()[:-2], *[b"X: " + b"x" * 1000 + b"\r\n"] * 5000],
        "a long header": [_head("X: " + "x" * 2_000_000), body],
        "length too long": [_head(f"Content-Length: {len(body) + 1}"), body],
        "length too short": [_head(f"Content-Length: {len(body) - 1}"), body],
        "length negative": [_head("Content-Length: -1"), body],
        "length immense": [_head(f"Content-Length: {2**62}"), body, 5.0],
        "length beyond all": [_head("Content-Length: 1" + "0" * 40), body],
        "two lengths": [_head(f"Content-Length: {len(body)}", "Content-Length: 3"), body],
        "chunks without an end": [_head("Transfer-Encoding: chunked"), b"%x\r\n%s\r\n" % (len(body), body), 5.0],
        "chunks cut off": [_head("Transfer-Encoding: chunked"), b"%x\r\n%s\r\n" % (len(body), body)],
        "chunks of no size": [_head("Transfer-Encoding: chunked"), b"zz\r\n", body],
        "a chunk of every size": [_head("Transfer-Encoding: chunked"), b"f" * 16 + b"\r\n", body],
        "drop by drop": [_head(f"Content-Length: {len(body)}"), *(p for b in body for p in (bytes([b]), 1.0))],
        "endless early hints": [_head("X: x", status="103 Early Hints")] * 100_000,
        "switched": [_head("Upgrade: x", "Connection: upgrade", status="101 Switching Protocols"), body],
        "gzip": reply(zipped, "Content-Encoding: gzip"),
        "deflate": reply(zlib.compress(body), "Content-Encoding: deflate"),
        "a gzip bomb": reply(_bomb(), "Content-Encoding: gzip"),
        "204": [_head(status="204 No Content"), body],
        "206": reply(body, status="206 Partial Content"),
        "304": [_head(status="304 Not Modified"), body],
        "redirect to itself": reply(body, "Location: ?", status="302 Found"),
        "redirect for ever": reply(body, "Location: /redirected", status="307 Temporary Redirect"),
        "redirect elsewhere": reply(body, "Location: http://127.0.0.1:9/", status="308 Permanent Redirect"),
        "200 MiB": [_head(), body[:-1], *[b" " * 2**20] * 200, body[-1:]],
        "401": reply(body, status="401 Unauthorized"),
        "429": reply(body, "Retry-After: 86400", status="429 Too Many Requests"),
        "500": reply(body, status="500 Internal Server Error"),
    }


@functools.cache
def _bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b" " * 2**20) for _ in range(200)) + packer.flush()
