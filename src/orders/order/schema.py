"""The wire format: what requests must look like, and what `/docs` says of answers (PostgreSQL builds those)."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from orders.order.attached import Notes
from orders.order.model import MAX_ID
from orders.order.named_types import EventDetails, EventType, Metadata, OrderMembers, ProblemCode, Status
from orders.order.statuses import parse_workflow
from orders.order.texts import PROSE, as_prose

ID_EXAMPLE = "01a20a88-cc73-7a41-9b52-0d6c3f1e8a77"


ORDER_EXAMPLE: dict[str, Any] = {
    "id": ID_EXAMPLE,
    "number": 1,
    "customer_id": 42,
    "channel": "web",
    "status": "Ordered",
    "items": [
        {
            "id": 1,
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
    "allowed_statuses": [
        "Confirmed",
        "Paid",
        "Processing",
        "Shipped",
        "Delivered",
        "Completed",
        "On Hold",
        "Cancelled",
    ],
    "external_reference": "web-2026-004711",
    "metadata": {"channel": "web", "gift": True},
    "notes": {"public": "Leave it with the neighbour.", "private": None},
    "created_at": "2026-11-23T22:31:07.123000Z",
    "updated_at": "2026-11-23T22:31:07.141592Z",
}


def _without_fraction(value: Any) -> Any:
    """2.0 as 2: JSON Schema calls it an integer. A float beyond 2^53 stays one, as it may have lost
    digits on its way.
    """
    return int(value) if type(value) is float and value.is_integer() and abs(value) <= 2**53 else value


WHOLE = BeforeValidator(_without_fraction)


PLACED_EXAMPLE: dict[str, Any] = {
    "number": 1,
    "type": "placed",
    "before": {"status": "Pending"},
    "after": {"status": "Ordered"},
    "details": None,
    "actor": "key:shop",
    "reason": None,
    "note": None,
    "request_id": "01a20a88cc737a419b520d6c3f1e8a70",
    "at": "2026-11-23T22:31:07.141592Z",
}


_CANCELLED_EXAMPLE: dict[str, Any] = {
    "number": 2,
    "type": "cancelled",
    "before": {"items": [{"id": 1, "quantity": 2, "cancelled": 0}], "total": 20},
    "after": {"items": [{"id": 1, "quantity": 1, "cancelled": 1}], "total": 10},
    "details": {"restock": True, "items": [{"id": 1, "quantity": 1}]},
    "actor": "key:shop/anna",
    "reason": "customer",
    "note": "Ordered one too many.",
    "request_id": "01a20a88cc737a419b520d6c3f1e8a71",
    "at": "2026-11-24T08:00:00.271828Z",
}


_SMALL_TABLE = """
line = ["Ordered", "Collected"]
[statuses.Ordered]
next = ["Cancelled"]
[statuses.Collected]
final = true
[statuses.Cancelled]
final = true
gives_stock_back = true
"""


Identifier = Annotated[int, Field(ge=1, le=MAX_ID)]


AnyCustomer = Annotated[int, Field(ge=-MAX_ID - 1, le=MAX_ID)]
"""The ID of a customer whose orders are read: the simpler service had some of 0 and less. Nothing is
placed for them.
"""


Note = Annotated[
    Annotated[str, Field(min_length=1, max_length=1000, json_schema_extra={"pattern": PROSE}), AfterValidator(as_prose)]
    | None,
    Field(description="Kept with the change in the order's history."),
]


class Item(BaseModel):
    """A line of an order. Name and unit price are those of the moment it was placed."""

    id: int
    product_id: int
    name: str | None
    quantity: Annotated[int, Field(description="What is left of the line after partial cancellations.")]
    unit_price: int | None
    total: int | None
    cancelled: int
    returned: int


class Order(BaseModel):
    """An order. Money is an integer in the catalog's own unit; what an adopted order never recorded is null."""

    model_config = ConfigDict(json_schema_extra={"example": ORDER_EXAMPLE})

    id: UUID
    number: int
    customer_id: int
    channel: Annotated[str | None, Field(description="The sales channel that the order came through. Null: not said.")]
    status: Status
    items: list[Item]
    currency: Literal["USD"]
    total: int | None
    version: Annotated[int, Field(description="1, and one more with every change. The `ETag` is this, quoted.")]
    allowed_statuses: Annotated[list[Status], Field(description="What the order can be moved to.")]
    external_reference: str | None
    metadata: Metadata
    notes: Annotated[
        Notes, Field(description="`private` is null, too, for those who may not see it: customers, and some keys.")
    ]
    created_at: datetime | None
    updated_at: datetime | None


class OrderEvent(BaseModel):
    """Something that happened to an order. `number` is the order's version after it."""

    number: int
    type: EventType
    before: Annotated[OrderMembers | None, Field(description="The members of the order that changed, as they were.")]
    after: Annotated[OrderMembers | None, Field(description="The same members, as they are now.")]
    details: Annotated[EventDetails | None, Field(description="What was asked for beyond that.")]
    actor: Annotated[
        str,
        Field(description="Who did it. `shop`: somebody of the shop, whose name this credential may not see."),
    ]
    reason: str | None
    note: Annotated[str | None, Field(description="Null, too, for those who see `shop` as the actor.")]
    request_id: str | None
    at: datetime


class EventList(BaseModel):
    """What happened to an order, first things first; numbered without gaps. `next` is the address of the following
    page, or null.
    """

    model_config = ConfigDict(
        json_schema_extra={"example": {"events": [PLACED_EXAMPLE, _CANCELLED_EXAMPLE], "next": None}}
    )

    events: list[OrderEvent]
    next: str | None


class StatusInWorkflow(BaseModel):
    """A status of the table."""

    status: Status
    label: str
    description: str
    allowed_statuses: Annotated[
        list[Status], Field(description="What may follow; from a `hold` also the status that the order came from.")
    ]
    hold: bool
    final: bool
    gives_stock_back: bool


class WorkflowGraph(BaseModel):
    """The table of statuses. Along `line` an order goes forward, skipping allowed."""

    model_config = ConfigDict(json_schema_extra={"example": parse_workflow(_SMALL_TABLE).document()})

    initial: Status
    line: list[Status]
    statuses: list[StatusInWorkflow]
    mermaid: Annotated[str, Field(description="The same as a Mermaid diagram.")]


class OrderList(BaseModel):
    """A page of orders. `next` is the address of the following page, or null; `total_count` is there if asked for."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "orders": [ORDER_EXAMPLE],
                "next": "/orders?limit=1&cursor=Cu2yHDA60cyAAAAAAAAAAAGiCojMc3pBm1INbD8einc",
            }
        }
    )

    orders: list[Order]
    next: str | None
    total_count: Annotated[
        int | None,
        Field(description="How many orders the whole list has; only with `include_total`. Null: see `total_hint`."),
    ] = None
    total_hint: Annotated[
        str | None, Field(description="Why `total_count` is null: counting takes too long; and what helps.")
    ] = None


class ProblemError(BaseModel):
    """One thing that is wrong, and where: `pointer` is `#/…` in the body, `query/…`, `header/…` or `path/…`."""

    model_config = ConfigDict(extra="allow")

    pointer: str | None = None
    code: str
    message: str


class Problem(BaseModel):
    """An error, as RFC 9457 has it. `code` is stable; `detail` is for people."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: ProblemCode
    errors: list[ProblemError] | None = None
