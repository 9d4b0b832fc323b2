"""The routes of exports: the lists of `orders` as files, in constant memory."""

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Send

from orders.errors import Code, OrderError
from orders.finding.export import COLUMNS, chunks, csv_chunk, ndjson_chunk
from orders.finding.parameters import EACH_ONCE
from orders.finding.query import FilterQuery
from orders.finding.service import finding
from orders.postgres.database import DatabaseUnavailable
from orders.wire.asking import seer_of
from orders.wire.costs import ROWS, charge
from orders.wire.operations import operation_id
from orders.wire.problems import problem_responses

log = logging.getLogger(__name__)

router = APIRouter(tags=["exports"], generate_unique_id_function=operation_id, dependencies=EACH_ONCE)
Wanted = Annotated[FilterQuery, Query()]


def _described(media_type: str, description: str, example: str) -> dict[str, Any]:
    return {
        "response_class": Response,
        "responses": {
            200: {
                "description": description,
                "content": {media_type: {"schema": {"type": "string"}, "example": example}},
            },
            **problem_responses(Code.INVALID_REQUEST, Code.TOO_SLOW, Code.DATABASE_UNAVAILABLE),
        },
    }


_LINE_EXAMPLE = {
    "order_id": "01a20a88-cc73-7a41-9b52-0d6c3f1e8a77",
    "number": "1",
    "customer_id": "42",
    "channel": "web",
    "status": "Ordered",
    "created_at": "2026-11-23T22:31:07.123000Z",
    "updated_at": "2026-11-23T22:31:07.141592Z",
    "currency": "USD",
    "total": "20",
    "version": "1",
    "item_id": "1",
    "product_id": "7",
    "name": "Whispers of the Night",
    "quantity": "2",
    "unit_price": "10",
    "item_total": "20",
    "cancelled": "0",
    "returned": "0",
}


@router.get(
    "/orders.csv",
    summary="Orders as CSV, a line per item",
    **_described(
        "text/csv",
        "A line per item, oldest order first",
        f"{','.join(COLUMNS)}\r\n{','.join(_LINE_EXAMPLE.get(name, '') for name in COLUMNS)}\r\n",
    ),
)
async def export_csv(request: Request, query: Wanted) -> Response:
    """Every order that the filters leave, oldest first, as it is when its turn comes; those that are placed meanwhile
    are not in it. A text that a spreadsheet would take for a formula gets a ' in front: one that begins with = + - or @
    (also in full width), perhaps behind spaces or what nobody sees.
    """
    return await _export(request, query, csv_chunk, "text/csv; charset=utf-8", "orders.csv")


@router.get(
    "/orders.ndjson",
    summary="Orders as NDJSON, a line per order",
    **_described(
        "application/x-ndjson",
        "A line per order, oldest first",
        '{"id": "01a20a88-cc73-7a41-9b52-0d6c3f1e8a77", "number": 1, "customer_id": 42, "status": "Ordered", …}\n',
    ),
)
async def export_ndjson(request: Request, query: Wanted) -> Response:
    """The same as `/orders.csv`, each order as everywhere in this API."""
    return await _export(request, query, ndjson_chunk, "application/x-ndjson", "orders.ndjson")


async def _export(request: Request, query: FilterQuery, read: Any, media_type: str, file_name: str) -> Response:
    service = finding(request)
    filters = query.to_filters(service.workflow, others=await service.other_statuses(query))
    parts = chunks(service.database, read, seer_of(request), filters, service.slow_reads)
    first, count = await anext(parts)  # an error is a problem document as long as nothing was sent
    charge(request, count / ROWS)

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for chunk, count in parts:
            charge(request, count / ROWS)
            yield chunk

    return _Stream(
        body(), media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{file_name}"'}
    )


class _Stream(StreamingResponse):
    """A body that breaks off if it can't go on. Its end is then never announced, so clients know that it
    is incomplete.
    """

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except (DatabaseUnavailable, OrderError) as error:
            log.warning("an export broke off: %s", error)
