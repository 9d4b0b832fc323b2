"""Which addresses of a client, as a server writes them, are this machine."""

from typing import Any

import pytest

from orders.access.local import is_from_this_machine
from orders.wire.addresses import Target
from orders.wire.gate import Asked
from orders.wire.operations import OPERATIONS


@pytest.mark.parametrize(
    ("client", "is_local"),
    [
        (("127.0.0.1", 5000), True), (("::1", 5000), True), (("::ffff:127.0.0.1", 5000), True),
        (("0:0:0:0:0:0:0:1", 5000), False), (("::ffff:127.0.0.6", 5000), False), (("::ffff:192.0.2.60", 5000), False),
        (("fe80::1%eth0", 5000), False), (("127.0.0.2", 5000), False), (("0.0.0.0", 5000), False),
        (("localhost", 5000), False), (("testclient", 5000), False), (("", 0), False), (None, False),
    ],
)  # fmt: skip
def test_only_the_two_loopback_addresses_are_this_machine(client: Any, is_local: bool) -> None:
    assert is_from_this_machine(asked_by(client, (b"host", b"localhost"))) is is_local


def asked_by(client: Any, *headers: tuple[bytes, bytes], version: str = "1.1") -> Asked:
    scope = {"client": client, "http_version": version, "headers": list(headers)}
    return Asked(scope, "GET", dict(headers), Target(OPERATIONS["get_orders"]), {})


HOST = (b"host", b"127.0.0.1:8000")


@pytest.mark.parametrize(
    ("headers", "is_local"),
    [
        ([HOST], True),
        ([(b"host", b"LOCALHOST:1")], True),
        ([(b"host", b"localhost:80@evil.example")], False),
        ([(b"host", b"[::1]evil.example")], False),
        ([(b"host", b"localhost.evil.example")], False),
        ([(b"host", b"")], False),
        ([HOST, (b"origin", b"http://localhost:5173")], True),  # a page of the developer's own
        ([HOST, (b"origin", b"http://192.168.1.5:5173")], False),
        ([HOST, (b"origin", b"null")], False),
        ([HOST, (b"referer", b"http://127.0.0.1:8000/docs")], True),
        ([HOST, (b"referer", b"https://shop.example/")], False),
        ([HOST, (b"referer", b"http://localhost.evil.example/")], False),
        ([HOST, (b"sec-fetch-site", b"cross-site"), (b"sec-fetch-site", b"none")], False),
        ([HOST, (b"accept", b"a"), (b"accept", b"b")], True),
    ],
)
def test_what_names_another_host_is_not_from_here(headers: list[tuple[bytes, bytes]], is_local: bool) -> None:
    assert is_from_this_machine(asked_by(("127.0.0.1", 5000), *headers)) is is_local


@pytest.mark.parametrize("connection", [b"close", b"Close", b"close, te"])
def test_an_older_nginx_is_known(connection: bytes) -> None:
    asked = asked_by(("127.0.0.1", 5000), HOST, (b"connection", connection), version="1.0")
    assert not is_from_this_machine(asked)
