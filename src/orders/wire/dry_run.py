"""`dry_run=true` on the wire: the parameter of every write, and the answer that shows what would be."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from orders.errors import invalid
from orders.order.idempotency import Answer
from orders.order.schema import ORDER_EXAMPLE, PLACED_EXAMPLE, Item, Order, OrderEvent
from orders.wire.problems import refused_parameters


async def read_dry_run(
    request: Request,
    dry_run: Annotated[
        Any,  # not bool: pydantic would accept "yes" and "1" too
        Query(
            include_in_schema=False
        ),  # it would give each write two types of answers; `previews` has an operation each
    ] = False,
) -> bool:
    """The value of `dry_run`, the only parameter of writes. Raises OrderError for other parameters and for other
    values.
    """
    if others := [name for name in request.query_params if name != "dry_run"]:
        raise refused_parameters(others)
    if request.query_params.getlist("dry_run") not in ([], ["true"], ["false"]):
        raise invalid("query/dry_run", "bool_parsing", "dry_run: true or false, once.")
    return bool(dry_run == "true")


DryRun = Annotated[bool, Depends(read_dry_run)]
"""For every route that writes."""


class PreviewedItem(Item):
    """A line as it would be. `id` is null where the order does not exist yet."""

    id: int | None  # type: ignore[assignment]  # wider than an order's: pydantic allows it, and it is never written


class PreviewedOrder(Order):
    """An order as it would be if it were done now. `id` and `number` are null where it does not exist yet."""

    id: UUID | None  # type: ignore[assignment]
    number: int | None  # type: ignore[assignment]
    items: list[PreviewedItem]  # type: ignore[assignment]


class StockChange(BaseModel):
    """A product's stock as the catalog has it, and as it would be. Stock that is due back goes along with any change of
    the product. Both are null where the catalog does not know the product, or does not answer.
    """

    product_id: int
    before: int | None
    after: int | None


_ORDER: dict[str, Any] = {
    **ORDER_EXAMPLE,
    "id": None,
    "number": None,
    "items": [{**item, "id": None} for item in ORDER_EXAMPLE["items"]],
    "created_at": ORDER_EXAMPLE["updated_at"],
}
STOCK_EXAMPLE: list[Any] = [{"product_id": 7, "before": 49, "after": 47}]
RESULT_EXAMPLE: dict[str, Any] = {"order": _ORDER, "events": [PLACED_EXAMPLE]}


class Preview(BaseModel):
    """What a write would have done. Nothing was written, nothing sent."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"dry_run": True, **RESULT_EXAMPLE, "stock": STOCK_EXAMPLE}}
    )

    dry_run: Literal[True]
    order: PreviewedOrder
    stock: Annotated[list[StockChange], Field(description="The products whose stock would change.")]
    events: Annotated[list[OrderEvent], Field(description="The events that would be written.")]


Stock = Mapping[int, tuple[int, int] | None]
"""Stock of each product before and after a change, or None if the catalog does not say how much there is."""


def preview_json(order: str, stock: Stock, events: str) -> str:
    """A preview as the wire has it. `order` and `events` are JSON."""
    return f'{{"dry_run":true,"order":{order},"stock":{stock_json(stock)},"events":{events}}}'


def stock_json(stock: Stock) -> str:
    """Each product's stock before and after, with null for both if the catalog does not say how much there is."""
    both = ((product_id, pair or (None, None)) for product_id, pair in sorted(stock.items()))
    return json.dumps([{"product_id": p, "before": before, "after": after} for p, (before, after) in both])


def preview_response(answer: Answer) -> Response:
    """The answer to a dry run: a preview (200), or the failure that the request's key remembers. Previewing a
    repetition changes nothing.
    """
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else {}
    if answer.status >= 300:
        return Response(answer.body, answer.status, headers, "application/problem+json")
    body = preview_json(answer.body, {}, "[]") if answer.replayed else answer.body
    return Response(body, 200, headers, "application/json")
