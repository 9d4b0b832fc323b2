"""Requests for many orders, and their answers: a result for each entry."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from orders.errors import Code, invalid
from orders.order.named_types import Status
from orders.order.results import Result
from orders.order.schema import ORDER_EXAMPLE, Order, OrderEvent, Problem
from orders.wire.dry_run import RESULT_EXAMPLE, STOCK_EXAMPLE, PreviewedOrder, Stock, StockChange, stock_json


class OrderInShort(BaseModel):
    """An order for which there is no room in this answer: read the rest by its ID."""

    id: UUID | None
    status: Status
    version: int


InShort = Annotated[
    OrderInShort | None, Field(description="Instead of `order`, once the orders of an answer have come to 4 MiB.")
]


class BatchResult(BaseModel):
    """What became of one entry: `status` is the HTTP status that it would have had alone. With it comes the `order` (or
    `order_in_short`), or the `problem`, whose pointers are those of the entry.
    """

    status: int
    order: Annotated[Order | None, Field(description="As it is now.")] = None
    order_in_short: InShort = None
    problem: Problem | None = None
    replayed: Annotated[bool | None, Field(description="True where this repeats an earlier answer.")] = None
    retry_after_s: Annotated[int | None, Field(description="Worth asking again after so many seconds.")] = None


class PreviewedResult(BatchResult):
    """What would become of one entry."""

    order: Annotated[PreviewedOrder | None, Field(description="As it would be.")] = None
    events: Annotated[list[OrderEvent] | None, Field(description="Those that would be written.")] = None


_REFUSED_EXAMPLE: dict[str, Any] = {
    "status": 404,
    "problem": {
        "type": "/problems/cart_not_found",
        "title": "The customer has no active cart",
        "status": 404,
        "detail": "Customer 43 has no active cart.",
        "instance": "/orders:batch",
        "code": "cart_not_found",
    },
}


class BatchResults(BaseModel):
    """A result for each entry, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"results": [{"status": 201, "order": ORDER_EXAMPLE}, _REFUSED_EXAMPLE]}}
    )

    results: list[BatchResult]


class BatchPreview(BaseModel):
    """What would become of each entry, in the order of the request, and of the stock."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "dry_run": True,
                "results": [{"status": 201, **RESULT_EXAMPLE}, _REFUSED_EXAMPLE],
                "stock": STOCK_EXAMPLE,
            }
        }
    )

    dry_run: Literal[True]
    results: list[PreviewedResult]
    stock: Annotated[list[StockChange], Field(description="The products whose stock would change.")]


RESULTS: dict[int | str, dict[str, Any]] = {
    200: {"model": BatchResults, "description": "What became of each, also where all were refused"}
}


PROBLEMS = (Code.BODY_TOO_LARGE, Code.INVALID_REQUEST, Code.DATABASE_UNAVAILABLE)


def refuse_header(request: Request, name: str, instead: str) -> None:
    """Refuse a header that is meant for one order. Otherwise it would be ignored, and nobody told."""
    if name in request.headers:
        raise invalid(f"header/{name}", "extra_forbidden", f"{name} is for a single order; here {instead}.")


def refuse_twice(values: Iterable[Hashable], member: str, what: str) -> None:
    """Refuse a request that names one thing twice, before anything is done."""
    given = list(values)
    twice = {value for value, count in Counter(given).items() if count > 1 and value is not None}
    if twice:
        n = max(n for n, value in enumerate(given) if value in twice)
        message = f"Entries {given.index(given[n])} and {n} both have {what}; send it once."
        raise invalid(f"#/orders/{n}/{member}", "duplicate", message)


def answered_each(results: Sequence[Result]) -> Response:
    return Response(f'{{"results":[{_join(results)}]}}', media_type="application/json")


def previewed_each(results: Sequence[Result], stock: Stock) -> Response:
    body = f'{{"dry_run":true,"results":[{_join(results)}],"stock":{stock_json(stock)}}}'
    return Response(body, media_type="application/json")


def _join(results: Sequence[Result]) -> str:
    return ",".join(result.json() for result in results)
