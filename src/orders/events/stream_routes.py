"""The route of the stream of events."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from orders.errors import Code, OrderError
from orders.events.feed import Feed
from orders.events.feed_sql import Page
from orders.events.parameters import LastEventId, Streaming, parse_last_event_id
from orders.events.routes import feed_of
from orders.events.stream import MayGoOn, Stream
from orders.events.tail import Tails
from orders.events.wanted import Wanted
from orders.wire.asking import asked_of, seer_of
from orders.wire.fast_routes import ReadingRoute
from orders.wire.gate import Check
from orders.wire.operations import operation_id
from orders.wire.problems import READ_PROBLEMS, problem_responses

router = APIRouter(tags=["events"], route_class=ReadingRoute, generate_unique_id_function=operation_id)

_EXAMPLE = """id: 1235
event: order.placed
data: {"position": 1235, "id": "01a20a88-cc73-7a41-9b52-0d6c3f1e8a77-1", "type": "order.placed", …}

"""
_MEDIA_TYPE = "text/event-stream"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@router.get(
    "/events/stream",
    summary="The feed as a stream (Server-Sent Events)",
    response_class=Response,
    responses={
        200: {
            "description": "Events as they happen",
            "content": {_MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EXAMPLE}},
        },
        **problem_responses(*READ_PROBLEMS, Code.POSITION_AHEAD, Code.POSITION_GONE, Code.STREAMS_FULL),
    },
)
async def stream_events(
    request: Request,
    query: Streaming,
    last_event_id: LastEventId = None,  # noqa: ARG001 (for the docs, as all headers)
) -> Response:
    """What `GET /events` has, sent as it happens: `id` is the position, `event` the type, `data` the event. A client
    that connects again sends `Last-Event-ID`, as every browser's EventSource does, and misses nothing.
    """
    last = parse_last_event_id(request.headers.getlist("last-event-id"))
    wanted, feed = query.wanted(seer_of(request)), feed_of(request)
    with contextlib.ExitStack() as stack:
        stack.enter_context(feed.place())
        first = await _first_page(feed, wanted, query.after if last is None else last)
        if asked_of(request).method == "HEAD":
            return Response(headers=_HEADERS, media_type=_MEDIA_TYPE)
        tail = _tails_of(request).tail_for(wanted.seer, first.head)
        stack.enter_context(tail.joined())
        stream = Stream(feed, tail, wanted, first, _may_go_on(request))
        return _Streaming(stream.parts(), stack.pop_all())


async def _first_page(feed: Feed, wanted: Wanted, after: int | None) -> Page:
    """The first page of the stream. Without a position: where the feed ends."""
    if after is not None:
        return await feed.read(replace(wanted, after=after))
    head = (await feed.read(Wanted(limit=1))).head
    return Page([], head, head)


def _may_go_on(request: Request) -> MayGoOn:
    """Asks the check of access once more. Where it can't say, the stream goes on: it has nothing to send then."""
    check: Check = request.app.state.access.check

    async def may_go_on() -> bool:
        error = check(asked_of(request))
        if error is not None and not isinstance(error, OrderError):
            error = await error
        return error is None or error.code.value.status not in (401, 403)

    return may_go_on


class _Streaming(StreamingResponse):
    """A stream, and what it holds until it ends, however it ends."""

    def __init__(self, parts: AsyncGenerator[bytes], held: contextlib.ExitStack) -> None:
        super().__init__(parts, headers=_HEADERS, media_type=_MEDIA_TYPE)
        self._parts = parts
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._parts.aclose()


def _tails_of(request: Request) -> Tails:
    tails: Tails = request.app.state.tails
    return tails
