"""Faults that a sandbox service can be told to have while it runs: `PUT /faults` with some of the fields below."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Rate = Field(0.0, ge=0, le=1)
Work = Callable[[], Response]


class Faults(BaseModel):
    """Rates are chances per request, 0 to 1. Reading and changing the faults is never disturbed."""

    model_config = ConfigDict(extra="forbid")

    slow_s: float = Field(0.0, ge=0, le=60, description="every answer takes so much longer")
    error_rate: float = Rate  # 500, and nothing was done
    lost_rate: float = Rate  # the work is done, the answer never comes
    late_rate: float = Rate  # a PUT is answered 504 at once, and lands late_s later
    late_s: float = Field(1.0, ge=0, le=60)
    rubbish_rate: float = Rate  # the work is done, the answer is none that a client can read; not where it was mixed up
    one_at_a_time: bool = Field(
        False,
        description="calls that overlap are mixed up, as by threads that share a database cursor: one is answered with "
        "another's answer, `not found`, `null` or 500; a PUT is answered `not found` or 500, and was done or not",
    )
    etags: bool = False  # the catalog's products carry ETags (PUT honours If-Match whenever it is sent)


_RUBBISH = (b'{"product_detail": {"id": 7, "na', b"<html>Bad Gateway</html>", b'{"price": NaN}', b"[]", b"null", b"")


QUERY_S = 0.002
"""Time between a query and the fetching of its row, in which another call takes the cursor."""


@dataclass(eq=False)
class Overlap:
    """A call that is under way, and whether another one was meanwhile."""

    work: Work
    is_get: bool
    is_mixed_up: bool


class Misfortune:
    """Does a request's work with the faults that are switched on."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._late: set[asyncio.Task[None]] = set()
        self._under_way: set[Overlap] = set()

    async def befall(self, request: Request, work: Work) -> Response:
        """`work`'s response, or what the faults make of it."""
        faults, asked = self.faults, work
        if faults.one_at_a_time:
            work = await self._share_the_cursor(request, work, faults.slow_s + QUERY_S)
        elif faults.slow_s:
            await asyncio.sleep(faults.slow_s)
        if _strikes(faults.error_rate):
            return JSONResponse("out of order", 500)
        if request.method == "PUT" and _strikes(faults.late_rate):
            return self._answer_before_work(work, faults.late_s)
        response = work()
        if _strikes(faults.lost_rate):
            await _until_the_client_gives_up(request)
        # A mixed-up PUT may have done nothing. "Done", in whatever words, would be a lie that no client can detect.
        if work is asked and _strikes(faults.rubbish_rate):
            return Response(random.choice(_RUBBISH), media_type="application/json")
        return response

    async def _share_the_cursor(self, request: Request, work: Work, query_s: float) -> Work:
        """`work` if no other call is under way within `query_s`; otherwise what sharing a cursor makes of it."""
        call = Overlap(work, is_get=request.method == "GET", is_mixed_up=bool(self._under_way))
        for other in self._under_way:
            other.is_mixed_up = True
        self._under_way.add(call)
        await asyncio.sleep(query_s)
        self._under_way.discard(call)
        if not call.is_mixed_up:
            return work
        return self._mixed_up_get(work) if call.is_get else _mixed_up_put(work)

    def _mixed_up_get(self, work: Work) -> Work:
        others = [other.work for other in self._under_way if other.is_get]
        return random.choice([work, _not_found, _null, _error, *others])

    def _answer_before_work(self, work: Work, late_s: float) -> Response:
        async def land() -> None:
            await asyncio.sleep(late_s)
            work()

        task = asyncio.create_task(land())
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return JSONResponse("gateway time-out", 504)

    def routes(self) -> list[Route]:
        """GET and PUT /faults."""
        return [Route("/faults", self._get, methods=["GET"]), Route("/faults", self._put, methods=["PUT"])]

    async def _get(self, _: Request) -> Response:
        return JSONResponse(self.faults.model_dump())

    async def _put(self, request: Request) -> Response:
        try:
            self.faults = Faults.model_validate({**self.faults.model_dump(), **await request.json()})
        except (ValidationError, ValueError, TypeError):
            return JSONResponse({"error": f"some of these, please: {', '.join(Faults.model_fields)}"}, 422)
        return JSONResponse(self.faults.model_dump())


def _mixed_up_put(work: Work) -> Work:
    is_done = random.random() < 0.5

    def answer() -> Response:
        if is_done:
            work()
        return random.choice((_not_found, _error))()

    return answer


def _not_found() -> Response:
    return JSONResponse("not found")


def _null() -> Response:
    return JSONResponse(None)


def _error() -> Response:
    return JSONResponse("out of order", 500)


def _strikes(rate: float) -> bool:
    return rate > 0 and random.random() < rate


async def _until_the_client_gives_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
