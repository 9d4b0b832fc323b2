"""Faults that a sandbox service can be told to have while it runs: `PUT /faults` with some of the fields below."""

import asyncio
import random
from collections.abc import Callable

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
    rubbish_rate: float = Rate  # the work is done, the answer is none that a client can read
    etags: bool = False  # the catalog's products carry ETags (PUT honours If-Match whenever it is sent)


_RUBBISH = (b'{"product_detail": {"id": 7, "na', b"<html>Bad Gateway</html>", b'{"price": NaN}', b"[]", b"null", b"")


class Misfortune:
    """Does a request's work with the faults that are switched on."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._late: set[asyncio.Task[None]] = set()

    async def befall(self, request: Request, work: Work) -> Response:
        """`work`'s response, or what the faults make of it."""
        faults = self.faults
        if faults.slow_s:
            await asyncio.sleep(faults.slow_s)
        if _strikes(faults.error_rate):
            return JSONResponse("out of order", 500)
        if request.method == "PUT" and _strikes(faults.late_rate):
            return self._answer_before_work(work, faults.late_s)
        response = work()
        if _strikes(faults.lost_rate):
            await _until_the_client_gives_up(request)
        if _strikes(faults.rubbish_rate):
            return Response(random.choice(_RUBBISH), media_type="application/json")
        return response

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


def _strikes(rate: float) -> bool:
    return rate > 0 and random.random() < rate


async def _until_the_client_gives_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
