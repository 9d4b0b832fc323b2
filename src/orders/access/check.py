"""The check of access: finds the principal of a request, and refuses what the principal may not do."""

import logging
from collections.abc import Awaitable, Sequence
from typing import Protocol

from orders.access.local import is_from_this_machine
from orders.errors import Code, OrderError
from orders.postgres.database import DatabaseUnavailable
from orders.principal import LOCAL, Principal
from orders.wire.asking import not_permitted
from orders.wire.gate import Asked
from orders.wire.operations import Operation

log = logging.getLogger(__name__)

Found = Principal | None
"""The principal of a credential, or None if the credential is not valid."""


class Credentials(Protocol):
    """One kind of credential: API keys, or tokens."""

    def is_one(self, text: str) -> bool:
        """Whether the text has this kind's format."""
        ...

    def find(self, text: str) -> Found | OrderError | Awaitable[Found | OrderError]:
        """The principal, or an error if nobody can say now. Awaitable if it has to be looked up."""
        ...

    def exist(self) -> bool | Awaitable[bool]:
        """Whether any is set up. Then nobody may ask without a credential."""
        ...


class Access:
    """Whoever may ask. `mode` is the setting ORDERS_ACCESS; `kinds` are the credentials that are understood."""

    def __init__(self, mode: str, kinds: tuple[Credentials, ...]) -> None:
        self._mode = mode
        self._kinds = kinds

    def check(self, asked: Asked) -> OrderError | Awaitable[OrderError | None] | None:
        """The refusal of the request, or None. The principal is in the request's state afterwards."""
        if asked.operation.scope is None:
            return None
        found = self._identify(asked)
        if found is None or isinstance(found, Principal | OrderError):
            return _admit(asked, found)
        return _admit_later(asked, found)

    def _identify(self, asked: Asked) -> Found | OrderError | Awaitable[Found | OrderError]:
        given = asked.headers.get(b"authorization")
        if given is None:
            return self._without_credential(asked)
        if [name for name, _ in asked.scope["headers"]].count(b"authorization") > 1:
            return OrderError(Code.CREDENTIAL_INVALID, "There are several Authorization headers; send one.")
        token = _bearer(given)
        for kind in self._kinds if token else ():
            if kind.is_one(token):
                return kind.find(token)
        return None

    def _without_credential(self, asked: Asked) -> Principal | OrderError | Awaitable[Principal | OrderError]:
        if self._mode == "open":
            return LOCAL
        if self._mode == "closed" or not is_from_this_machine(asked):
            return _credential_required()
        return self._unless_any_exist()

    def _unless_any_exist(self) -> Principal | OrderError | Awaitable[Principal | OrderError]:
        for n, kind in enumerate(self._kinds):
            exist = kind.exist()
            if exist is True:
                return _credential_required()
            if exist is not False:
                return _unless_any_exist_later(exist, self._kinds[n + 1 :])
        return LOCAL


def tell_if_open(mode: str) -> None:
    """Warn in the log if everybody may do everything. For each start."""
    if mode == "open":
        log.warning("ORDERS_ACCESS is open: whoever reaches this port may read and change every order")


def _bearer(header: bytes) -> str:
    """The token in an Authorization header. Empty if there is none."""
    scheme, _, token = header.partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""


async def _unless_any_exist_later(exist: Awaitable[bool], others: Sequence[Credentials]) -> Principal | OrderError:
    if await exist:
        return _credential_required()
    for kind in others:
        exists = kind.exist()
        if exists if isinstance(exists, bool) else await exists:
            return _credential_required()
    return LOCAL


async def _admit_later(asked: Asked, found: Awaitable[Found | OrderError]) -> OrderError | None:
    try:
        return _admit(asked, await found)
    except DatabaseUnavailable as error:
        unavailable = error.as_order_error()
        log.warning("%s: %s", unavailable.code.name.lower(), error)
        return unavailable


def _admit(asked: Asked, found: Found | OrderError) -> OrderError | None:
    """Let the principal in, or refuse it."""
    if isinstance(found, OrderError):
        return found
    if found is None:
        return OrderError(Code.CREDENTIAL_INVALID, "The key or the token is wrong, has expired, or was revoked.")
    if not _may(found, asked.operation):
        assert asked.operation.scope is not None  # asked by the caller
        return not_permitted(asked.operation.scope, "This")
    asked.scope.setdefault("state", {})["principal"] = found
    return None


def _may(principal: Principal, operation: Operation) -> bool:
    """Whether the principal may ask for the operation. Customers have no scopes."""
    if principal.is_customer:
        return operation.customer_may in principal.customer_may
    return operation.scope in principal.scopes


def _credential_required() -> OrderError:
    detail = "Send `Authorization: Bearer KEY`. `orders keys create --name NAME --as admin` makes a key."
    return OrderError(Code.CREDENTIAL_REQUIRED, detail)
