"""The check of access with keys: what is known is answered without waiting, and an outage is an answer."""

from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any

import pytest

from orders.access.check import Access
from orders.errors import Code, OrderError
from orders.postgres.database import DatabaseUnavailable
from orders.principal import LOCAL, Principal, PrincipalKind, Scope
from orders.wire.addresses import Target
from orders.wire.gate import Asked
from orders.wire.operations import OPERATIONS

READER = Principal(PrincipalKind.KEY, "key:a", "key:a", frozenset({Scope.ORDERS_READ}))


async def later(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


class Kind:
    """A kind of credential that answers what it is told to, at once or later."""

    def __init__(self, found: Any = None, exist: Any = False, *, waits: bool = False) -> None:
        self._found, self._exist, self._waits = found, exist, waits

    def is_one(self, text: str) -> bool:
        return text.startswith("ord_")

    def find(self, text: str) -> Any:
        return later(self._found) if self._waits else self._found

    def exist(self) -> bool | Awaitable[bool]:
        return later(self._exist) if self._waits else self._exist


def asked(operation: str = "get_orders", *credentials: bytes) -> Asked:
    headers = [(b"host", b"localhost:8000"), *((b"authorization", each) for each in credentials)]
    scope = {"headers": headers, "client": ("127.0.0.1", 4711), "http_version": "1.1"}
    return Asked(scope, "GET", dict(headers), Target(OPERATIONS[operation]), {})


async def decided(kinds: tuple[Kind, ...], request: Asked) -> OrderError | None:
    result = Access("local", kinds).check(request)
    return await result if isawaitable(result) else result  # type: ignore[return-value]


def test_what_is_known_is_answered_without_waiting() -> None:
    request = asked("get_orders", b"Bearer ord_x")
    assert Access("local", (Kind(READER),)).check(request) is None
    assert request.scope["state"]["principal"] is READER
    request = asked()
    assert Access("local", (Kind(exist=False), Kind(exist=False))).check(request) is None
    assert request.scope["state"]["principal"] is LOCAL
    refused = Access("local", (Kind(exist=True), Kind(exist=True, waits=True))).check(asked())
    assert isinstance(refused, OrderError)
    assert refused.code is Code.CREDENTIAL_REQUIRED


@pytest.mark.parametrize("waiting", [0b00, 0b01, 0b10, 0b11])
@pytest.mark.parametrize("there", [0b00, 0b01, 0b10, 0b11])
async def test_one_credential_of_any_kind_ends_the_access_without(waiting: int, there: int) -> None:
    kinds = tuple(Kind(exist=bool(there >> n & 1), waits=bool(waiting >> n & 1)) for n in range(2))
    refused = await decided(kinds, asked())
    assert (refused.code if refused else None) == (Code.CREDENTIAL_REQUIRED if there else None)


@pytest.mark.parametrize("request_of", [asked("get_orders", b"Bearer ord_x"), asked()])
async def test_without_a_database_the_check_says_so_and_lets_nobody_in(request_of: Asked) -> None:
    away = DatabaseUnavailable("it is away")
    refused = await decided((Kind(away, away, waits=True),), request_of)
    assert refused
    assert refused.code is Code.DATABASE_UNAVAILABLE
    assert refused.retry_after_s == 1
    assert "principal" not in request_of.scope.get("state", {})


async def test_a_key_that_is_found_later_may_no_more_than_one_that_is_known() -> None:
    for waits in (False, True):
        refused = await decided((Kind(READER, waits=waits),), asked("list_keys", b"Bearer ord_x"))
        assert refused
        assert refused.extra == {"required_scope": "access:manage"}
        refused = await decided((Kind(None, waits=waits),), asked("get_orders", b"Bearer ord_x"))
        assert refused
        assert refused.code is Code.CREDENTIAL_INVALID


async def test_two_credentials_are_none_whichever_is_good() -> None:
    refused = await decided((Kind(READER),), asked("get_orders", b"Bearer ord_x", b"Bearer ord_x"))
    assert refused
    assert refused.code is Code.CREDENTIAL_INVALID
