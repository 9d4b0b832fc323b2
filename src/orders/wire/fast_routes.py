"""Routes that read a request straight into a Pydantic model, for the busiest operations.

FastAPI still documents them, and answers the requests that the model refuses.
"""

import inspect
from collections.abc import Callable, Collection, Iterable
from json import JSONDecodeError
from typing import Any, get_args, get_origin
from urllib.parse import parse_qs

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from orders.wire.bodies import BodyRoute, read_json
from orders.wire.dry_run import read_dry_run
from orders.wire.problems import repeated_parameter


class ReadingRoute(APIRoute):
    """A route whose function takes `request`, the parameters of its path, and a model `query`. It reads headers itself.

    FastAPI walks over each field of the model for each request: this took 200 of the 300 µs of CPU on its side of an
    answer. Here FastAPI only gets a request that the model refuses, to write the error.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        _refuse_dependencies(self, known=())
        self._model: type[BaseModel] = get_args(inspect.signature(endpoint).parameters["query"].annotation)[0]
        self._nothing: BaseModel = self._model()
        fields = self._model.model_fields.items()
        self._lists = {name for name, field in fields if get_origin(field.annotation) is list}
        self._singles = {name for field in fields for name in _names(*field)} - self._lists

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        try:
            query = self._read(scope["query_string"].decode("latin-1"))
        except ValidationError:
            query = None
        if query is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(Request(scope, receive, send), query=query, **scope["path_params"])
        await response(scope, receive, send)

    def _read(self, query_string: str) -> BaseModel:
        """The query as the model. Raises ValidationError, or OrderError if a parameter that is no list came twice."""
        if not query_string:
            return self._nothing
        given = parse_qs(query_string, keep_blank_values=True)
        for name, values in given.items():
            if len(values) > 1 and name in self._singles:
                raise repeated_parameter(name)
        # The model judges parameters that came twice and that it does not name.
        return self._model.model_validate(
            {name: values if name in self._lists or len(values) > 1 else values[0] for name, values in given.items()}
        )


class PlacingRoute(BodyRoute):
    """A route whose function takes `request`, the parameters of its path, `dry_run`, and a model `body` or None. It
    reads headers itself.

    FastAPI makes Python objects of the body and looks up each parameter: more than half of its share of a 201. Here the
    model reads the bytes. FastAPI only gets a request that has more than a body, or that the model refuses.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        _refuse_dependencies(self, known=(read_dry_run,))
        annotation = inspect.signature(endpoint).parameters["body"].annotation
        self._model: type[BaseModel] = get_args(get_args(annotation)[0])[0]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        if scope["method"] not in (self.methods or ()) or not _is_plain(scope):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            text = await request.body()
            body = self._read(text)
        except ClientDisconnect:
            return  # the client left in the middle of its body: nobody waits for an answer
        except (ValidationError, JSONDecodeError):
            await super().handle(scope, _again(text, receive), send)
            return
        response = await self.endpoint(request, body=body, dry_run=False, **scope["path_params"])
        await response(scope, receive, send)

    def _read(self, text: bytes) -> BaseModel | None:
        """The body as the model, or None if it is empty. Raises ValidationError, JSONDecodeError or Refused."""
        if not text:
            return None
        read_json(text)  # refuses a member that is there twice, which the model would accept
        return self._model.model_validate_json(text)


class DependencyIgnored(Exception):
    """A dependency was given to a route that would not ask it. Checks of every request are the gate's (`gate`)."""


def _refuse_dependencies(route: APIRoute, known: Collection[Callable[..., Any]]) -> None:
    if strangers := [each.call for each in route.dependant.dependencies if each.call not in known]:
        raise DependencyIgnored(f"{route.path} reads its requests by itself and would not ask {strangers}")


def _names(name: str, field: FieldInfo) -> Iterable[str]:
    """The names that a parameter may have."""
    others = field.validation_alias
    return (str(other) for other in others.choices) if isinstance(others, AliasChoices) else (name,)


def _is_plain(scope: Scope) -> bool:
    """Whether the request has nothing to read but a JSON body, or no body."""
    headers = dict(scope["headers"])
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
    is_json = types == [b"application/json"] or not (types or has_body)
    return is_json and not scope["query_string"] and b"x-actor" not in headers


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives once more a body that was read already."""
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def receive_again() -> Message:
        nonlocal message
        first, message = message, None
        return first or await receive()

    return receive_again
