"""Errors as problem documents (RFC 9457): whatever is raised, the client is told in one shape."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from orders.errors import Code, OrderError, invalid, problem
from orders.postgres.database import DatabaseUnavailable
from orders.wire.problems import invalid_fields

log = logging.getLogger(__name__)


class Refused(HTTPException):
    """An OrderError that passes through FastAPI's reading of a body. Other exceptions become a plain 400 there."""

    def __init__(self, error: OrderError) -> None:
        super().__init__(error.code.value.status)
        self.error = error


def problem_response(request: Request, error: OrderError, headers: dict[str, str] | None = None) -> Response:
    """The problem document as an answer. The error is kept in the request's state for the log."""
    headers = headers or ({} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)})
    if error.code in (Code.BODY_TOO_LARGE, Code.HOST_INVALID):
        # the following bytes are the rest of a body, or of a request that can't be trusted
        headers["Connection"] = "close"
    if error.code.value.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    request.scope.setdefault("state", {})["problem"] = error
    document = problem(error, request.url.path)
    return JSONResponse(document, error.code.value.status, headers, media_type="application/problem+json")


def answer_with_problems(app: FastAPI) -> None:
    """Make the app answer every error with a problem document."""

    @app.exception_handler(OrderError)
    async def on_order_error(request: Request, error: OrderError) -> Response:
        return problem_response(request, error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return problem_response(request, _wrong_content_type(request, error) or invalid_fields(error.errors()))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        return problem_response(request, _from_http_error(request, error), dict(error.headers or {}))

    @app.exception_handler(DatabaseUnavailable)
    async def on_database_unavailable(request: Request, error: DatabaseUnavailable) -> Response:
        unavailable = error.as_order_error()
        log.warning("%s: %s", unavailable.code.name.lower(), error)
        return problem_response(request, unavailable)


def _wrong_content_type(request: Request, error: RequestValidationError) -> OrderError | None:
    """The error for a body that was not labelled as JSON, or None. FastAPI passes such a body as plain bytes."""
    if not any(e["loc"] == ("body",) and isinstance(e.get("input"), bytes) for e in error.errors()):
        return None
    given = request.headers.get("content-type")
    wanted = "application/merge-patch+json" if request.method == "PATCH" else "application/json"
    came = "without a type" if given is None else f"as {given[:60]}"
    message = f"Send the body as {wanted}; it came {came}."
    return invalid("header/Content-Type", "content_type", message)


def _from_http_error(request: Request, error: HTTPException) -> OrderError:
    if isinstance(error, Refused):
        return error.error
    if error.status_code == 404:
        return OrderError(Code.NOT_FOUND, f"There is nothing at {request.url.path}.")
    return invalid("#", "json_invalid", "The body can't be read as JSON.")
