"""The wire format: what requests must look like, and what `/docs` says of answers (PostgreSQL builds those)."""

import re
from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orders.changing.describe import TOO_LARGE, attached_bytes
from orders.errors import Code, OrderError, invalid, problem
from orders.order.attached import Notes, Reference
from orders.order.model import MAX_ID, MAX_LINES, MAX_QUANTITY
from orders.order.named_types import Condition, EventDetails, Metadata, OrderMembers, ProblemCode, Reason, Status
from orders.order.sizes import MAX_ATTACHED_BYTES
from orders.order.statuses import Workflow, parse_workflow
from orders.order.texts import PROSE, as_prose

ID_EXAMPLE = "01a20a88-cc73-7a41-9b52-0d6c3f1e8a77"
ORDER_EXAMPLE: dict[str, Any] = {
    "id": ID_EXAMPLE,
    "number": 1,
    "customer_id": 42,
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

CUSTOMER_ID = "[1-9][0-9]{0,18}"
"""A customer's ID as it stands in an address; no more than 2^63-1, which a pattern can't say."""

ANY_CUSTOMER_ID = "-?[1-9][0-9]{0,18}|0"
"""The same where orders are read that were adopted from the simpler service: -2^63 … 2^63-1."""

KEY = r'"(?:[!#-\[\]-~]|\\["\\]){1,255}"|[!#-~][!-~]{0,254}'
"""An `Idempotency-Key`: 1 … 255 visible ASCII characters, quoted (RFC 9651 string) or bare."""

CURSOR = "[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"
"""32 bytes in URL-safe base64, without its padding."""


def _without_fraction(value: Any) -> Any:
    """2.0 is an integer to JSON Schema. Beyond 2^53 a float may have lost digits on its way, and stays one."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) <= 2**53 else value


WHOLE = BeforeValidator(_without_fraction)

PLACED_EXAMPLE: dict[str, Any] = {
    "number": 1,
    "type": "placed",
    "before": {"status": "Pending"},
    "after": {"status": "Ordered"},
    "details": None,
    "actor": "api",
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
    "actor": "anna",
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
"""A customer whose orders are read: the simpler service had some with IDs of 0 and less. Nothing is placed for them."""


_DETAILS_EXAMPLE: dict[str, Any] = {
    "external_reference": "web-2026-004711",
    "metadata": {"channel": "web", "gift": True},
    "notes": {"public": "Leave it with the neighbour."},
}


class ItemToOrder(BaseModel):
    """A product and how many of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    product_id: Annotated[int, Field(ge=1, le=MAX_ID), WHOLE]
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY), WHOLE]


class OrderToPlace(BaseModel):
    """What to order. Without `items` (or without a body) it is the customer's shopping cart."""

    model_config = ConfigDict(extra="forbid", strict=True)

    items: Annotated[list[ItemToOrder], Field(min_length=1, max_length=MAX_LINES)] | None = None
    external_reference: Reference | None = None
    metadata: Metadata | None = None
    notes: Notes | None = None

    @model_validator(mode="after")
    def _is_small(self) -> Self:
        if self.metadata or self.notes:
            attached = self.model_dump(include={"metadata", "notes"})
            if attached_bytes(attached) > MAX_ATTACHED_BYTES:
                raise ValueError(TOO_LARGE)
        return self


class OrderPatch(BaseModel):
    """A JSON merge patch (RFC 7396): what is named is replaced, null removes, the members of objects are merged."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [_DETAILS_EXAMPLE]})

    external_reference: Reference | None = None
    metadata: Metadata | None = None
    notes: Notes | None = None


Note = Annotated[
    Annotated[str, Field(min_length=1, max_length=1000, json_schema_extra={"pattern": PROSE}), AfterValidator(as_prose)]
    | None,
    Field(description="Kept with the change in the order's history."),
]


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
    status: Status
    items: list[Item]
    currency: Literal["USD"]
    total: int | None
    version: Annotated[int, Field(description="1, and one more with every change. The `ETag` is this, quoted.")]
    allowed_statuses: Annotated[list[Status], Field(description="What the order can be moved to.")]
    external_reference: str | None
    metadata: Metadata
    notes: Notes
    created_at: datetime | None
    updated_at: datetime | None


class OrderEvent(BaseModel):
    """Something that happened to an order. `number` is the order's version after it."""

    number: int
    type: Annotated[str, Field(description="placed, failed, moved, cancelled, returned, described or changed")]
    before: Annotated[OrderMembers | None, Field(description="The members of the order that changed, as they were.")]
    after: Annotated[OrderMembers | None, Field(description="The same members, as they are now.")]
    details: Annotated[EventDetails | None, Field(description="What was asked for beyond that.")]
    actor: str
    reason: str | None
    note: str | None
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
    """A page of orders. `next` is the address of the following page, or null; `total_count` is there for who asks."""

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


_ORDER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_ETAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
_ETAGS = re.compile(rf"[\s,]*{_ETAG.pattern}(\s*,[\s,]*{_ETAG.pattern})*[\s,]*")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+ -]\d\d:\d\d)", re.ASCII)


def parse_customer_id(text: str) -> int | None:
    """1 … 2^63-1 in plain digits, or None."""
    return int(text) if re.fullmatch(CUSTOMER_ID, text) and int(text) <= MAX_ID else None


def parse_any_customer_id(text: str) -> int | None:
    """-2^63 … 2^63-1 in plain digits, or None."""
    is_one = re.fullmatch(ANY_CUSTOMER_ID, text, re.ASCII) and -MAX_ID - 1 <= int(text) <= MAX_ID
    return int(text) if is_one else None


def parse_order_id(text: str) -> UUID | None:
    """A UUID in its usual form, or None."""
    return UUID(text) if _ORDER.fullmatch(text) else None


def parse_key(values: list[str]) -> str | None:
    """The `Idempotency-Key`, without its quotes. Raises OrderError."""
    if not values:
        return None
    if len(values) > 1 or not re.fullmatch(KEY, values[0]):
        message = "must be one value of 1 to 255 visible ASCII characters, quoted or bare"
        raise invalid("header/Idempotency-Key", "key_invalid", f"Idempotency-Key {message}.")
    return re.sub(r"\\(.)", r"\1", values[0][1:-1]) if values[0].startswith('"') else values[0]


def parse_status_or_refuse(text: str, pointer: str, workflow: Workflow) -> str:
    """The status that `text` names. Raises OrderError with the known ones."""
    status = workflow.parse(text)
    if status is None:
        known = ", ".join(workflow.by_name)
        raise invalid(pointer, "unknown_status", f"{text[:40]!r} is not a status; the statuses are {known}.")
    return status


def parse_versions(values: list[str], header: str) -> Container[int] | None:
    """The versions in `If-Match` or `If-None-Match`: ETags with commas, or `*` for any. Raises OrderError."""
    if not values:
        return None
    text = ",".join(values)
    if text.strip() == "*":
        return range(1, 2**31)
    if not _ETAGS.fullmatch(text):
        raise invalid(
            f"header/{header}", "etag_invalid", f'{header}: send the ETag as it was, like "3" with the quotes.'
        )
    is_weak_enough = header == "If-None-Match"  # a weak ETag, from a proxy on the way, is not for changing things
    return {
        int(tag)
        for weak, tag in _ETAG.findall(text)
        if tag.isdecimal() and len(tag) < 11 and (is_weak_enough or not weak)
    }


def parse_moment(text: str) -> int | datetime:
    """A version, or a time as RFC 3339 has it. Raises OrderError."""
    try:
        if re.fullmatch("[1-9][0-9]{0,9}", text):
            return int(text)
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text.upper().replace(" ", "+"))  # a + that was not escaped arrives as a space
    except ValueError:
        pass
    raise invalid("query/at", "at_invalid", "at: a version like 2, or a time like 2026-11-24T08:00:00Z.")


MAX_ERRORS = 20
"""Maximum number of errors that an answer names. With more, `error_count` tells how many there are."""


def invalid_fields(errors: Sequence[dict[str, Any]]) -> OrderError:
    """422 from what validation found."""
    found = [{"pointer": _pointer(e["loc"]), "code": e["type"], "message": _message(e)} for e in errors[:MAX_ERRORS]]
    where = ", ".join("its body" if e["pointer"] == "#" else str(e["pointer"]) for e in found[:3])
    extra = {"errors": found, **({"error_count": len(errors)} if len(errors) > MAX_ERRORS else {})}
    return OrderError(Code.INVALID_REQUEST, f"The request is malformed at {where}.", extra=extra)


def refused_parameters(names: Iterable[str], why: str = "There is no parameter {!r}.") -> OrderError:
    """422 for query parameters that have no meaning where they are; `why` has a place for the name."""
    found = [(f"query/{name[:60]}", why.format(name[:60])) for name in names]
    errors = [{"pointer": pointer, "code": "extra_forbidden", "message": message} for pointer, message in found]
    return OrderError(Code.INVALID_REQUEST, " ".join(message for _, message in found[:3]), extra={"errors": errors})


def repeated_parameter(name: str) -> OrderError:
    """422 for a query parameter that has one value, and came with several."""
    return invalid(f"query/{name[:60]}", "duplicate", f"{name[:60]}: send it once.")


def _pointer(loc: tuple[str | int, ...]) -> str:
    place, *rest = loc
    if place == "body":
        rest = [] if rest and isinstance(rest[0], int) else rest  # not JSON: the number is an offset, no member
        return "#" + "".join(f"/{str(part)[:60].replace('~', '~0').replace('/', '~1')}" for part in rest)
    return "/".join(str(part)[:60] for part in loc)


def _message(error: dict[str, Any]) -> str:
    place, name = error["loc"][0], str(error["loc"][-1])[:60]
    match error["type"]:
        case "json_invalid":
            return f"The body is not JSON: {error.get('ctx', {}).get('error', '')} at character {name}."
        case "missing":
            return "A body is needed; there is none." if name == "body" else f"{name} is needed; it is missing."
        case "extra_forbidden":
            return f"There is no {'member' if place == 'body' else 'parameter'} {name!r}."
    return f"{error['msg'].removeprefix('Value error, ')}."


def problem_responses(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """What `/docs` says of these errors: one entry per HTTP status, an example per code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = code.value
        detail, extra = _PROBLEM_EXAMPLES.get(code, (kind.advice, {}))
        example = problem(OrderError(code, detail, extra=extra), "/")  # `app` puts the operation's address there
        entry = responses.setdefault(kind.status, {"description": kind.title, "content": _problem_content()})
        if kind.title not in entry["description"]:
            entry["description"] += f" · {kind.title}"
        if "Retry-After" in kind.advice:
            entry["headers"] = {"Retry-After": _RETRY_AFTER}
        entry["content"]["application/problem+json"]["examples"][example["code"]] = {"value": example}
    return responses


def _one_error(pointer: str, code: str, message: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return message, {"errors": [{"pointer": pointer, "code": code, "message": message, **more}]}


_MOVES_LEFT = ["Delivered", "Completed", "Returned", "Refunded"]
_CANT_MOVE = f"An order that is Shipped can't become Cancelled; it can become {', '.join(_MOVES_LEFT)}."
_PROBLEM_EXAMPLES: dict[Code, tuple[str, dict[str, Any]]] = {
    Code.INVALID_REQUEST: _one_error("query/colour", "extra_forbidden", "There is no parameter 'colour'."),
    Code.INSUFFICIENT_INVENTORY: _one_error(
        "#/items/0",
        "insufficient_inventory",
        "Product 8: 2 requested, 1 available.",
        product_id=8,
        requested=2,
        available=1,
    ),
    Code.STATUS_NOT_ALLOWED: (_CANT_MOVE, {"allowed_statuses": _MOVES_LEFT}),
    Code.QUANTITY_EXCEEDED: _one_error(
        "#/items/0/quantity", "quantity_exceeded", "Line 1: 3 asked for, 2 left.", left=2
    ),
    Code.VERSION_CHANGED: ("The order has version 3, which is none of those that you named.", {"version": 3}),
    Code.BATCH_REFUSED: _one_error(
        "#/orders/1", "status_not_allowed", _CANT_MOVE, id=ID_EXAMPLE, allowed_statuses=_MOVES_LEFT
    ),
    Code.EXTERNAL_REFERENCE_TAKEN: (
        f"The external reference 'web-2026-004711' is that of order {ID_EXAMPLE}.",
        {"order_id": ID_EXAMPLE},
    ),
}
"""Of errors whose document has more members than every error: their `detail`, and these members."""

_RETRY_AFTER = {"description": "So many seconds later.", "schema": {"type": "integer", "minimum": 1}}


def _problem_content() -> dict[str, Any]:
    return {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}
