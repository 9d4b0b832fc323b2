"""What changes of an order must look like."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from orders.order.attached import Attached
from orders.order.model import MAX_LINES, MAX_QUANTITY
from orders.order.named_types import Condition, Reason, Status
from orders.order.schema import Identifier, Note

_DETAILS_EXAMPLE: dict[str, Any] = {
    "external_reference": "web-2026-004711",
    "metadata": {"channel": "web", "gift": True},
    "notes": {"public": "Leave it with the neighbour."},
}


class OrderPatch(Attached):
    """A JSON merge patch (RFC 7396): what is named is replaced, null removes, the members of objects are merged."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [_DETAILS_EXAMPLE]})


class NewStatus(BaseModel):
    """The status to move the order to. Upper and lower case are one."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"status": "Confirmed", "note": "By telephone."}]}
    )

    status: Status
    note: Note = None


class UnitsToCancel(BaseModel):
    """A line of the order, and how much of it to cancel."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[Identifier, Field(description="The line's `id` in the order.")]
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY)]


class UnitsToReturn(UnitsToCancel):
    """A line of the order, how much of it came back, and in which condition; only `restocked` goes back to stock."""

    condition: Condition = "restocked"


class Cancellation(BaseModel):
    """Why an order is cancelled, and which part of it. Without `items`: all of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Reason | None = None
    note: Note = None
    restock: Annotated[bool, Field(description="Whether the stock goes back to the catalog.")] = True
    items: Annotated[list[UnitsToCancel], Field(min_length=1, max_length=MAX_LINES)] | None = None


class Return(BaseModel):
    """Which goods came back. Without `items`: all of them, `restocked`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Reason | None = None
    note: Note = None
    items: Annotated[list[UnitsToReturn], Field(min_length=1, max_length=MAX_LINES)] | None = None
