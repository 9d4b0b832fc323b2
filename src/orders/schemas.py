"""The wire format: what requests must look like, and what `/docs` says of answers (PostgreSQL builds those)."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from orders.describe import MAX_METADATA_BYTES, check_metadata
from orders.errors import Code, OrderError, invalid, problem
from orders.order import MAX_ID, MAX_LINES, MAX_QUANTITY, Status, parse_status

_ID_EXAMPLE = "019ab1e2-7c3d-7a41-9b52-0d6c3f1e8a77"
_ORDER_EXAMPLE: dict[str, Any] = {
    "id": _ID_EXAMPLE,
    "number": 1,
    "customer_id": 42,
    "status": "Ordered",
    "items": [
        {"id": 1, "product_id": 7, "name": "Whispers of the Night", "quantity": 2, "unit_price": 10, "total": 20}
    ],
    "currency": "USD",
    "total": 20,
    "version": 1,
    "external_reference": "web-2026-004711",
    "metadata": {"channel": "web", "gift": True},
    "notes": {"public": "Leave it with the neighbour.", "private": None},
    "created_at": "2026-11-23T22:31:07.123000Z",
    "updated_at": "2026-11-23T22:31:07.141592Z",
}

Identifier = Annotated[int, Field(ge=1, le=MAX_ID)]


_DETAILS_EXAMPLE: dict[str, Any] = {
    "external_reference": "web-2026-004711",
    "metadata": {"channel": "web", "gift": True},
    "notes": {"public": "Leave it with the neighbour."},
}


def _sound(text: str) -> str:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must not hold U+0000 or half of a surrogate pair")
    return text


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    check_metadata(metadata)
    return metadata


Note = Annotated[str, Field(max_length=4000), AfterValidator(_sound)]
Reference = Annotated[
    str,
    Field(min_length=1, max_length=255, description="What the order is called elsewhere; no two orders share one."),
    AfterValidator(_sound),
]
Metadata = Annotated[
    dict[str, Any],
    Field(
        description=f"A JSON object of yours, of at most {MAX_METADATA_BYTES} bytes. Orders can be found by its "
        "members that are strings."
    ),
    AfterValidator(_small),
]


class Notes(BaseModel):
    """Text for people. `public` is meant for the customer, `private` for the shop; both are in every order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    public: Note | None = None
    private: Note | None = None


class ItemToOrder(BaseModel):
    """A product and how many of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    product_id: Identifier
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY)]


class OrderToPlace(BaseModel):
    """What to order. Without `items` (or without a body) it is the customer's shopping cart."""

    model_config = ConfigDict(extra="forbid", strict=True)

    items: Annotated[list[ItemToOrder], Field(min_length=1, max_length=MAX_LINES)] | None = None
    external_reference: Reference | None = None
    metadata: Metadata | None = None
    notes: Notes | None = None


class OrderPatch(BaseModel):
    """A JSON merge patch (RFC 7396): what is named is replaced, null removes, the members of objects are merged."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"example": _DETAILS_EXAMPLE})

    external_reference: Reference | None = None
    metadata: Metadata | None = None
    notes: Notes | None = None


class NewStatus(BaseModel):
    """The status to move the order to. Upper and lower case are one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    status: Annotated[str, Field(examples=["Confirmed"])]


class Item(BaseModel):
    """A line of an order. Name and unit price are those of the moment it was placed."""

    id: int
    product_id: int
    name: str | None
    quantity: int
    unit_price: int | None
    total: int | None


class Order(BaseModel):
    """An order. Money is an integer in the catalog's own unit; what an adopted order never recorded is null."""

    model_config = ConfigDict(json_schema_extra={"example": _ORDER_EXAMPLE})

    id: UUID
    number: int
    customer_id: int
    status: Annotated[str, Field(description="One of " + ", ".join(Status))]
    items: list[Item]
    currency: Literal["USD"]
    total: int | None
    version: int
    external_reference: str | None
    metadata: dict[str, Any]
    notes: Notes
    created_at: datetime | None
    updated_at: datetime | None


class OrderList(BaseModel):
    """A page of orders. `next` is the address of the following page, or null; `total_count` is there for who asks."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "orders": [_ORDER_EXAMPLE],
                "next": "/orders?limit=1&cursor=kEwN0pS9nxqAAAAAAAAAAAGasHFwA3pBm1INbD8einc",
            }
        }
    )

    orders: list[Order]
    next: str | None
    total_count: Annotated[
        int | None, Field(description="How many orders the whole list has; only with `include_total`.")
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
    code: str
    errors: list[ProblemError] | None = None


_CUSTOMER = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_ORDER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_QUOTED_KEY = re.compile(r'"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE_KEY = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]*")


def parse_customer_id(text: str) -> int | None:
    """1 … 2^63-1 in plain digits, or None."""
    return int(text) if _CUSTOMER.fullmatch(text) and int(text) <= MAX_ID else None


def parse_order_id(text: str) -> UUID | None:
    """A UUID in its usual form, or None."""
    return UUID(text) if _ORDER.fullmatch(text) else None


def parse_key(values: list[str]) -> str | None:
    """The `Idempotency-Key`: 1 … 255 visible ASCII characters, quoted (RFC 9651 string) or bare. Raises OrderError."""
    if not values:
        return None
    quoted = _QUOTED_KEY.fullmatch(values[0])
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else values[0]
    if len(values) > 1 or not 1 <= len(key) <= 255 or not (quoted or _BARE_KEY.fullmatch(values[0])):
        message = "must be one value of 1 to 255 visible ASCII characters, quoted or bare"
        raise invalid("header/Idempotency-Key", "key_invalid", f"Idempotency-Key {message}.")
    return key


def parse_status_or_refuse(text: str, pointer: str) -> Status:
    """The status that `text` names. Raises OrderError with the known ones."""
    status = parse_status(text)
    if status is None:
        known = ", ".join(Status)
        raise invalid(pointer, "unknown_status", f"{text[:40]!r} is not a status; the statuses are {known}.")
    return status


def invalid_fields(errors: Iterable[dict[str, Any]]) -> OrderError:
    """422 from what validation found."""
    found = [{"pointer": _pointer(e["loc"]), "code": e["type"], "message": _message(e)} for e in errors]
    where = ", ".join(str(e["pointer"]) for e in found[:3])
    return OrderError(Code.INVALID_REQUEST, f"The request is malformed at {where}.", extra={"errors": found})


def _pointer(loc: tuple[str | int, ...]) -> str:
    place, *rest = loc
    if place == "body":
        rest = [] if rest and isinstance(rest[0], int) else rest  # not JSON: the number is an offset, no member
        return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in rest)
    return "/".join(str(part) for part in loc)


def _message(error: dict[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"The body is not JSON: {error.get('ctx', {}).get('error', '')} at character {error['loc'][-1]}."
    return f"{error['msg'].removeprefix('Value error, ')}."


def problem_responses(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """What `/docs` says of these errors: one entry per HTTP status, an example per code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = code.value
        example = problem(OrderError(code, kind.advice), "/orders/42")
        entry = responses.setdefault(kind.status, {"description": kind.title, "content": _problem_content()})
        if kind.title not in entry["description"]:
            entry["description"] += f" · {kind.title}"
        entry["content"]["application/problem+json"]["examples"][example["code"]] = {"value": example}
    return responses


def _problem_content() -> dict[str, Any]:
    return {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}
