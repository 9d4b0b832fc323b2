"""The routes of the feed. They pass on the JSON that PostgreSQL built."""

import asyncio
import json

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from orders.errors import Code
from orders.events.feed import Feed
from orders.events.feed_sql import Page
from orders.events.parameters import FeedQuery, Following
from orders.events.schemas import FeedHead, FeedPage
from orders.events.wanted import Wanted
from orders.wire.asking import seer_of
from orders.wire.fast_routes import ReadingRoute
from orders.wire.operations import operation_id
from orders.wire.parameters import WITHOUT_PARAMETERS
from orders.wire.problems import READ_PROBLEMS, problem_responses

router = APIRouter(tags=["events"], route_class=ReadingRoute, generate_unique_id_function=operation_id)
head_router = APIRouter(tags=["events"], generate_unique_id_function=operation_id)


@router.get(
    "/events",
    summary="The feed: what happened to all orders",
    responses={
        200: {"model": FeedPage, "description": "A page of events, first things first"},
        **problem_responses(*READ_PROBLEMS, Code.POSITION_AHEAD, Code.POSITION_GONE, Code.STREAMS_FULL),
    },
)
async def get_events(request: Request, query: Following) -> Response:
    """Every event of every order, in one order: each event has a position, without gaps, and an order's events come in
    their order. Read on with `next`, and remember it: nothing is lost or repeated. Events are here a moment after they
    happened (`/events/head` says how long), old ones too.
    """
    wanted = query.wanted(seer_of(request))
    if query.wait:
        return await _while_connected(request, query, wanted)
    return _answer(query, await feed_of(request).read(wanted))


@head_router.get(
    "/events/head",
    summary="Where the feed ends",
    responses={
        200: {"model": FeedHead, "description": "The last position, and how late the feed is"},
        **problem_responses(*READ_PROBLEMS),
    },
    dependencies=WITHOUT_PARAMETERS,
)
async def get_events_head(request: Request) -> Response:
    """To read only what happens from now on, begin with this `head` as `after`."""
    head = await feed_of(request).read_head()
    return JSONResponse({"head": head.position, "lag_s": None if head.lag_s is None else round(head.lag_s, 3)})


def feed_of(request: Request) -> Feed:
    """The feed of the application that the request came to."""
    feed: Feed = request.app.state.machinery.feed
    return feed


async def _while_connected(request: Request, query: FeedQuery, wanted: Wanted) -> Response:
    """The answer, once there is an event. Nobody waits any longer for a client that has left."""
    waiting = asyncio.ensure_future(feed_of(request).wait(wanted, query.wait))
    leaving = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return _answer(query, waiting.result())
        return Response(status_code=204)  # nobody reads it
    finally:
        waiting.cancel()
        leaving.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(query: FeedQuery, page: Page) -> Response:
    following = json.dumps(query.next_url(page.end, page.mark))
    body = f'{{"events":[{",".join(page.events)}],"next":{following},"head":{page.head}}}'
    return Response(body.encode(), media_type="application/json")
