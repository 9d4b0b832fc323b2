"""No request reaches a route, or any answer, but through the gate. The app is asked as a server asks it."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import uuid4

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from orders.app import create_app
from orders.errors import Code, OrderError
from orders.settings import Settings
from orders.wire.addresses import Addresses, TableIncomplete
from orders.wire.fast_routes import DependencyIgnored, PlacingRoute, ReadingRoute
from orders.wire.gate import Asked, Check, pass_on
from orders.wire.operations import OPERATIONS, Kind, Operation

SHOP_PAGE = "https://admin.shop.example"


def refuse(_: Asked) -> OrderError:
    return OrderError(Code.CREDENTIAL_INVALID, "Nobody passes.")


async def refuse_later(asked: Asked) -> OrderError:
    """As a check that asks the database."""
    return refuse(asked)


def app_with(*checks: Check, **settings: Any) -> FastAPI:
    given = {"catalog_url": "http://catalog", "cart_url": "http://cart", "orders_access": "open", **settings}
    return create_app(Settings(_env_file=None, **given), checks)


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


async def ask(app: FastAPI, method: str, address: str, body: bytes = b"", **more: Any) -> Answer:
    path, _, query = address.partition("?")
    length = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))] if body else []
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "scheme": "http",
        "method": method, "path": path, "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", b"shop"), *length, *more.pop("headers", ())], **more,
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return Answer(sent[0]["status"], dict(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:]))


def concrete(path: str) -> Iterable[str]:
    """Addresses of this route: with a customer's ID and with an order's."""
    return {re.sub(r"\{\w+\}", value, path) for value in ("42", str(uuid4()))}


def addresses_of(route: BaseRoute) -> list[tuple[str, str]]:
    """Every method and address by which this route can be asked."""
    if isinstance(route, Mount):
        return [("GET", f"{route.path}/redoc.standalone.js"), ("GET", f"{route.path}/nothing")]
    assert isinstance(route, Route)
    assert route.methods
    return [(method, path) for method in route.methods for path in concrete(route.path)]


ROUTES = [(method, path) for route in app_with().routes for method, path in addresses_of(route)]
PATHS = sorted({path for _, path in ROUTES})
ASKED = [
    *ROUTES,
    *(("HEAD", path) for path in PATHS),
    *(("OPTIONS", path) for path in PATHS),
    *((method, f"{path}/") for method, path in ROUTES),
    *((method, f"{path}//") for method, path in ROUTES),
    *((method, path) for method in ("DELETE", "TRACE", "PATCH", "BREW") for path in PATHS),
    *((method, path) for method in ("GET", "POST", "OPTIONS") for path in ("/nothing", "/dry-run", "//orders", "*")),
    *((method, f"{path}?dry_run=maybe&colour=red&colour=blue&limit=x") for method, path in ROUTES),
]


@pytest.mark.parametrize("check", [refuse, refuse_later])
async def test_nothing_is_answered_that_a_check_refuses(check: Check) -> None:
    app = app_with(check)
    for method, address in ASKED:
        for body in (b"", b"{}", b"no JSON"):
            answer = await ask(app, method, address, body)
            assert answer.status == 401, f"{method} {address}: {answer}"
            assert json.loads(answer.body)["code"] == "credential_invalid"


@pytest.mark.parametrize("access", ["closed", "local"])
async def test_nothing_that_needs_a_scope_is_answered_without_a_credential(access: str) -> None:
    """The app is asked as a server asks it for a stranger: without the address of a client on this machine."""
    seen: list[Asked] = []
    app = app_with(seen.append, orders_access=access)
    for method, address in ASKED:
        for body in (b"", b"{}", b"no JSON"):
            answer = await ask(app, method, address, body)
            if seen:
                assert seen.pop().operation.scope is None, f"{method} {address}: {answer}"
                continue
            assert answer.status == 401, f"{method} {address}: {answer}"
            assert json.loads(answer.body)["code"] == "credential_required"
            assert answer.headers[b"www-authenticate"] == b"Bearer"


def test_each_operation_that_is_public_is_one_that_tells_nothing_of_orders() -> None:
    public = {one.id for one in OPERATIONS.values() if one.scope is None}
    assert public == {
        "get_about", "get_health", "get_problems", "get_problem", "get_openapi", "get_docs", "get_redoc",
        "static-offline-docs", "get_asyncapi", "get_schemas", "get_schema",
    }  # fmt: skip


async def test_each_route_is_asked_as_its_own_operation() -> None:
    seen: list[Asked] = []
    app = app_with(lambda asked: seen.append(asked) or refuse(asked))
    for route in app.routes:
        for method, address in addresses_of(route):
            for variant in (address, f"{address}/"):
                await ask(app, method, variant)
                assert seen[-1].target.route is route, (method, variant)
                assert seen[-1].operation is OPERATIONS[str(route.name)]  # type: ignore[attr-defined]
    assert {asked.operation.id for asked in seen} == OPERATIONS.keys()


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("GET", "/nothing", "nothing_there"),
        ("GET", "/orders/42/cancel/7", "nothing_there"),
        ("GET", "/orders\n", "nothing_there"),
        ("OPTIONS", "/nothing", "nothing_there"),
        ("DELETE", "/orders/42", "method_not_allowed"),
        ("HEAD", "/orders/42/cancel", "method_not_allowed"),
        ("POST", "/docs", "method_not_allowed"),
        ("OPTIONS", "/orders/42", "options"),
        ("HEAD", "/orders/42", "get_order"),
        ("POST", "/dry-run/orders/42", "preview_place_order"),
    ],
)
async def test_what_no_route_answers_is_checked_too(method: str, path: str, operation: str) -> None:
    seen: list[str] = []
    await ask(app_with(lambda asked: seen.append(asked.operation.id) or refuse(asked)), method, path)
    assert seen == [operation]


async def test_behind_a_proxy_the_same_operations_are_found() -> None:
    seen: list[str] = []
    app = app_with(lambda asked: seen.append(asked.operation.id) or refuse(asked))
    for path in ("/shop/orders/42", "/shop/static-offline-docs/redoc.standalone.js", "/shopping/orders/42"):
        await ask(app, "GET", path, root_path="/shop")
    assert seen == ["get_order", "static-offline-docs", "nothing_there"]


async def test_without_a_further_check_what_needs_no_database_is_answered() -> None:
    app = app_with()
    for method, path, status in (
        ("GET", "/", 200), ("HEAD", "/problems/", 200), ("GET", "/openapi.json", 200), ("GET", "/docs", 200),
        ("GET", "/static-offline-docs/favicon.png", 200), ("GET", "/static-offline-docs/nothing", 404),
        ("OPTIONS", "/orders", 204), ("GET", "/nothing", 404), ("DELETE", "/orders", 405),
        ("POST", "/static-offline-docs/favicon.png", 405),
    ):  # fmt: skip
        assert (await ask(app, method, path)).status == status, (method, path)
    assert (await ask(app, "GET", "/static-offline-docs/favicon.png", root_path="")).body.startswith(b"\x89PNG")


async def test_checks_are_asked_in_order_and_the_first_that_refuses_is_the_last() -> None:
    seen: list[int] = []

    async def pass_later(_: Asked) -> None:
        seen.append(1)

    app = app_with(pass_later, lambda asked: seen.append(2) or refuse(asked), lambda _: seen.append(3))
    assert (await ask(app, "GET", "/")).status == 401
    assert seen == [1, 2]
    assert (await ask(app, "GET", "/", headers=[(b"host", b"twice")])).status == 400  # the service's own come first
    assert seen == [1, 2]


async def test_a_check_that_fails_lets_nobody_through() -> None:
    def fail(_: Asked) -> None:
        raise ZeroDivisionError

    assert (await ask(app_with(fail), "GET", "/")).status == 500


async def test_only_the_question_of_a_browser_passes_before_and_it_asks_nothing_of_a_route() -> None:
    """A browser sends no key with a preflight (Fetch, 4.8), and reads a refusal only with the headers of CORS."""
    app = app_with(refuse, orders_cors_origins=SHOP_PAGE)
    asks = [(b"origin", SHOP_PAGE.encode()), (b"access-control-request-method", b"PUT")]
    assert (await ask(app, "OPTIONS", "/orders/42", headers=asks)).status == 200
    for headers in (asks[:1], [(b"origin", b"https://evil.example"), (b"sec-fetch-site", b"same-site")]):
        for method in ("GET", "PUT", "OPTIONS"):
            assert (await ask(app, method, "/orders/42", headers=headers)).status == 401
    refused = await ask(app, "GET", "/orders/42", headers=asks[:1])
    assert refused.headers[b"access-control-allow-origin"] == SHOP_PAGE.encode()


# The table -----------------------------------------------------------------------------------------------------------


async def answer_nothing(_: Request) -> Response:
    return Response()


def route(path: str, name: str, *methods: str) -> Route:
    return Route(path, answer_nothing, methods=methods or ["GET"], name=name)


ONE = {"one": Operation("one", Kind.READS)}
TWO = {**ONE, "two": Operation("two", Kind.READS)}


@pytest.mark.parametrize(
    ("routes", "table", "why"),
    [
        ([route("/one", "one"), route("/two", "two")], ONE, "two is not in the table"),
        ([route("/one", "one")], TWO, "no route: two"),
        ([route("/one", "one"), route("/two", "one")], ONE, "one has two routes"),
        ([route("/one", "one"), route("/one", "two")], TWO, "GET /one has two routes"),
        ([route("/{id:int}", "one")], ONE, "is a text"),
        ([Route("/one", answer_nothing, name="one", methods=[])], ONE, "name its methods"),
        ([Mount("/below", routes=[route("/one", "one")], name="one")], ONE, "can't be found"),
    ],
)
def test_a_table_that_is_not_the_routes_is_an_error_at_start(
    routes: list[BaseRoute], table: dict[str, Operation], why: str
) -> None:
    with pytest.raises(TableIncomplete, match=why):
        Addresses(routes, table)


def test_the_service_does_not_start_with_a_route_that_is_not_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPERATIONS, "get_order")
    with pytest.raises(TableIncomplete, match="get_order is not in the table"):
        app_with()


def test_nor_with_an_entry_that_has_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATIONS, "delete_order", Operation("delete_order", Kind.WRITES))
    with pytest.raises(TableIncomplete, match="no route: delete_order"):
        app_with()


async def test_a_route_that_is_added_to_the_app_later_is_not_there() -> None:
    app = app_with()
    app.get("/late")(answer_nothing)
    app.router.routes.insert(0, route("/problems", "sooner"))
    assert (await ask(app, "GET", "/late")).status == 404
    assert b"database_full" in (await ask(app, "GET", "/problems")).body


async def test_a_router_that_is_asked_past_the_gate_answers_nothing() -> None:
    router = app_with().router
    with pytest.raises(KeyError):
        await router({"type": "http", "method": "GET", "path": "/", "headers": []}, None, None)  # type: ignore[arg-type]


# Dependencies --------------------------------------------------------------------------------------------------------


class Nothing(BaseModel):
    pass


async def read(request: Request, query: Annotated[Nothing, Query()]) -> None: ...


async def place(request: Request, body: Nothing | None = None) -> None: ...


Add = Callable[[APIRouter], object]


@pytest.mark.parametrize(("kind", "endpoint"), [(ReadingRoute, read), (PlacingRoute, place)])
def test_a_route_that_would_not_ask_a_dependency_is_none(kind: type, endpoint: Any) -> None:
    asks = [Depends(answer_nothing)]
    with pytest.raises(DependencyIgnored):
        APIRouter(route_class=kind, dependencies=asks).add_api_route("/", endpoint)
    with pytest.raises(DependencyIgnored):
        APIRouter(route_class=kind).add_api_route("/", endpoint, dependencies=asks)


def test_an_app_that_would_not_ask_its_dependencies_is_none() -> None:
    with pytest.raises(TableIncomplete, match="Dependencies"):
        pass_on(FastAPI(dependencies=[Depends(answer_nothing)]).router)


def test_a_router_that_is_included_is_found_out() -> None:
    app, inner = FastAPI(openapi_url=None), APIRouter()
    inner.add_api_route("/one", answer_nothing, name="one")
    app.include_router(inner, dependencies=[Depends(answer_nothing)])
    with pytest.raises(TableIncomplete, match="can't be found"):
        Addresses(app.routes, ONE)
