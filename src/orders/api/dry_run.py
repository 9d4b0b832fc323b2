"""`dry_run=true` on the wire: the parameter of every write, and the answer that shows what would be."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from orders.dry_run import preview_json
from orders.errors import invalid
from orders.request import Answer
from orders.schemas import Event, Item, Order, unknown_parameters


async def read_dry_run(
    request: Request,
    dry_run: Annotated[
        bool,
        Query(description="Only tell what would be: nothing is written, and nothing sent to the catalog or the carts."),
    ] = False,
) -> bool:
    """The one parameter of writes. Raises OrderError: others are refused, not ignored, and so is any other value."""
    if others := [name for name in request.query_params if name != "dry_run"]:
        raise unknown_parameters(others)
    if request.query_params.getlist("dry_run") not in ([], ["true"], ["false"]):
        raise invalid("query/dry_run", "bool_parsing", "dry_run: true or false, once.")
    return dry_run


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
    "id": None,
    "number": None,
    "customer_id": 42,
    "status": "Ordered",
    "items": [
        {
            "id": None,
            "product_id": 7,
            "name": "Whispers of the Night",
            "quantity": 2,
            "unit_price": 10,
            "total": 20,
            "cancelled": 0,
            "returned": 0,
        }
    ],
    "currency": "USD",
    "total": 20,
    "version": 1,
    "allowed_statuses": ["Confirmed", "Paid", "On Hold", "Cancelled"],
    "external_reference": None,
    "metadata": {},
    "notes": {"public": None, "private": None},
    "created_at": "2026-11-23T22:31:07.123456Z",
    "updated_at": "2026-11-23T22:31:07.123456Z",
}
_EVENT: dict[str, Any] = {
    "number": 1,
    "type": "placed",
    "before": {"status": "Pending"},
    "after": {"status": "Ordered"},
    "details": None,
    "actor": "api",
    "reason": None,
    "note": None,
    "request_id": "019ab1e27c3d7a419b520d6c3f1e8a70",
    "at": "2026-11-23T22:31:07.123456Z",
}
STOCK_EXAMPLE: list[Any] = [{"product_id": 7, "before": 49, "after": 47}]
RESULT_EXAMPLE: dict[str, Any] = {"order": _ORDER, "events": [_EVENT]}


class Preview(BaseModel):
    """What a write would have done. Nothing was written, nothing sent."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"dry_run": True, "order": _ORDER, "stock": STOCK_EXAMPLE, "events": [_EVENT]}}
    )

    dry_run: Literal[True]
    order: PreviewedOrder
    stock: Annotated[list[StockChange], Field(description="The products whose stock would change.")]
    events: Annotated[list[Event], Field(description="The events that would be written.")]


def preview_response(answer: Answer) -> Response:
    """A preview (200), or the failure that the request's key stands for. What would be a repetition changes nothing."""
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else {}
    if answer.status >= 300:
        return Response(answer.body, answer.status, headers, "application/problem+json")
    body = preview_json(answer.body, {}, "[]") if answer.replayed else answer.body
    return Response(body, 200, headers, "application/json")
