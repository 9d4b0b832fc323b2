"""The gate: the one way to a route. It finds the operation of a request, asks the checks, and hands the request on.

A dependency of FastAPI is no gate: routes that read their requests by themselves (`fast_routes`) never ask it. The gate
is before all routes, and a request that has not passed it reaches none.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orders.errors import Code, OrderError
from orders.wire.addresses import Addresses, TableIncomplete, Target
from orders.wire.failures import Refused, problem_response
from orders.wire.operations import OPTIONS, Operation


@dataclass(slots=True)
class Asked:
    """A request as the checks see it. Its body has not been read, and its query has not been parsed."""

    scope: Scope
    method: str
    """As the client sent it. HEAD is GET in `scope`."""
    headers: dict[bytes, bytes]
    """The last one of each name. Checks that need all of them read `scope`."""
    target: Target
    path_parameters: dict[str, str]
    answer_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Headers that a check wants in the answer, whatever it is."""
    at_end: Callable[[], None] | None = None
    """What a check wants to be called once the answer is sent, or broken off."""

    @property
    def operation(self) -> Operation:
        """The operation. Its kind is NOTHING if no route would be asked."""
        return self.target.operation


Check = Callable[[Asked], OrderError | Awaitable[OrderError | None] | None]
"""A function that returns the refusal of a request, or None. A check that has to wait returns an awaitable of these."""


class Gate:
    """Asks every check of every request, in their order. Requests without a route are checked too: 404 and 405 are
    answers.
    """

    def __init__(self, addresses: Addresses, checks: Sequence[Check]) -> None:
        self._addresses = addresses
        self._checks = tuple(checks)

    def ask(self, scope: Scope, method: str, headers: dict[bytes, bytes]) -> Asked:
        """The request, and where it goes."""
        return Asked(scope, method, headers, *self._addresses.find(scope))

    async def answer(self, asked: Asked, app: ASGIApp, receive: Receive, send: Send) -> None:
        """Refuse the request, or answer it."""
        try:
            await self._answer(asked, app, receive, send)
        finally:
            if asked.at_end:
                asked.at_end()

    async def _answer(self, asked: Asked, app: ASGIApp, receive: Receive, send: Send) -> None:
        scope, target = asked.scope, asked.target
        if error := await self._refusal(asked):
            await problem_response(Request(scope), error)(scope, receive, send)
        elif target.route is None:
            await _without_route(scope, target)(scope, receive, send)
        else:
            if target.operation.is_lasting:
                scope["state"]["asked"] = asked
            _choose_route(scope, target, asked.path_parameters)
            await app(scope, _bounded(scope, receive, target.operation.max_body_bytes), send)

    async def _refusal(self, asked: Asked) -> OrderError | None:
        for check in self._checks:
            error = check(asked)
            if error is not None and not isinstance(error, OrderError):
                error = await error
            if error is not None:
                return error
        return None


def pass_on(router: APIRouter) -> None:
    """Make the router call the route that the gate has found, and not search for one.

    Raises TableIncomplete if the router has dependencies, which no route would ask.
    """
    if router.dependencies:
        raise TableIncomplete("Dependencies of the app are never asked; a check of the gate is.")
    start_and_stop = router.middleware_stack

    async def ask_route(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await scope["route"].handle(scope, receive, send)  # KeyError: it has not passed the gate
        elif scope["type"] == "lifespan":
            await start_and_stop(scope, receive, send)
        else:
            await router.default(scope, receive, send)  # there are no websockets here

    router.middleware_stack = ask_route


def _choose_route(scope: Scope, target: Target, path_parameters: dict[str, str]) -> None:
    """Put into the scope what the framework would put there: the route, its function, and the path's parameters."""
    route = target.route
    if isinstance(route, Mount):
        scope.update(route.matches(scope)[1])
    elif route is not None:
        scope["endpoint"] = route.endpoint
        scope["path_params"] = path_parameters
    scope["route"] = route


def _without_route(scope: Scope, target: Target) -> Response:
    """The answer to a request without a route: 204 to OPTIONS, 404 or 405."""
    if target.operation is OPTIONS:
        return Response(status_code=204, headers={"Allow": target.allowed})
    request = Request(scope)
    if not target.allowed:
        return problem_response(request, OrderError(Code.NOT_FOUND, f"There is nothing at {request.url.path}."))
    error = OrderError(Code.METHOD_NOT_ALLOWED, f"{request.method} is not for {request.url.path}.")
    return problem_response(request, error, {"Allow": target.allowed})


def _bounded(scope: Scope, receive: Receive, most: int) -> Receive:
    """A `receive` that passes on no more of the body than is allowed. Raises Refused."""
    if scope["method"] == "GET":
        return receive
    received = 0

    async def receive_some() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise Refused(body_too_large(most))
        return message

    return receive_some


def body_too_large(most: int) -> OrderError:
    """The error (413) for a body that is too large."""
    return OrderError(Code.BODY_TOO_LARGE, f"A body here is at most {most} bytes.")
