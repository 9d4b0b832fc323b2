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
    scope = {"client": client, "http_version": "1.1"}
    asked = Asked(scope, "GET", {b"host": b"localhost"}, Target(OPERATIONS["get_orders"]), {})
    assert is_from_this_machine(asked) is is_local
