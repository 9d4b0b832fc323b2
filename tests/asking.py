"""The app inside the test's own process, asked by principals of the test's choice: it needs no keys and no tokens."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from orders.app import create_app
from orders.principal import LOCAL, CustomerMay, Principal, PrincipalKind, Scope, Seer, with_implied
from orders.settings import Settings
from orders.wire.gate import Asked

SHOP = frozenset({Scope.ORDERS_PLACE, Scope.ORDERS_CHANGE})
"""The scopes of a key that places and changes orders. Private notes are not for it."""


def a_key(name: str, channel: str | None = None, scopes: frozenset[Scope] = SHOP | {Scope.CUSTOMERS_READ}) -> Principal:
    """An API key."""
    seer = Seer(channel=channel, sees_private=Scope.CUSTOMERS_READ in scopes)
    return Principal(PrincipalKind.KEY, f"key:{name}", f"key:{name}", with_implied(scopes), seer)


def a_customer(customer_id: int) -> Principal:
    """A customer who may do all that customers can be allowed to do."""
    name, seer = f"customer:{customer_id}", Seer(customer_id=customer_id, sees_private=False)
    return Principal(PrincipalKind.CUSTOMER, name, name, frozenset(), seer, customer_may=frozenset(CustomerMay))


@dataclass(frozen=True)
class Told:
    """An answer."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> Any:
        """The code of the problem."""
        return self.body["code"]


@dataclass(frozen=True)
class Counter:
    """Where the principals ask."""

    app: FastAPI
    principals: dict[bytes, Principal]

    async def ask(self, who: Principal, method: str, address: str, body: Any = None, **headers: str) -> Told:
        """The answer to a request of this principal. Headers as `If_Match`."""
        path, _, query = address.partition("?")
        text = b"" if body is None else json.dumps(body).encode()
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        of_body = {"content-type": kind, "content-length": str(len(text))} if text else {}
        given = {"host": "shop", "x-test-principal": who.name, **of_body, **headers}
        self.principals[who.name.encode()] = who
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "scheme": "http",
            "method": method, "path": path, "query_string": query.encode(), "root_path": "",
            "headers": [(n.lower().replace("_", "-").encode(), v.encode()) for n, v in given.items()],
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": text, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Told(sent[0]["status"], json.loads(answer) if answer else None, told)


@contextlib.asynccontextmanager
async def counter(settings: Settings) -> AsyncIterator[Counter]:
    """The app, started."""
    principals: dict[bytes, Principal] = {LOCAL.name.encode(): LOCAL}

    def introduce(asked: Asked) -> None:
        asked.scope.setdefault("state", {})["principal"] = principals[asked.headers[b"x-test-principal"]]

    app = create_app(settings.model_copy(update={"orders_access": "open", "orders_customer_rate": 0}), [introduce])
    async with app.router.lifespan_context(app):
        yield Counter(app, principals)
