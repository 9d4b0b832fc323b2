"""The wire format: what requests must look like, and what `/docs` says of answers (PostgreSQL builds those)."""

import base64
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
    "created_at": "2026-11-23T22:31:07.123456Z",
    "updated_at": "2026-11-23T22:31:07.141592Z",
}

CUSTOMER_ID = "[1-9][0-9]{0,18}"
"""A customer's ID as it stands in an address; no more than 2^63-1, which a pattern can't say."""

KEY = r'"(?:[!#-\[\]-~]|\\["\\]){1,255}"|[!#-~][!-~]{0,254}'
"""An `Idempotency-Key`: 1 … 255 visible ASCII characters, quoted (RFC 9651 string) or bare."""

CURSOR = "[A-Za-z0-9_-]{21}[AQgw]"
"""16 bytes in URL-safe base64, without its padding."""


def _without_fraction(value: Any) -> Any:
    """2.0 is an integer to JSON Schema. Beyond 2^53 a float may have lost digits on its way, and stays one."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) <= 2**53 else value


WHOLE = BeforeValidator(_without_fraction)
StatusName = Annotated[str, Field(json_schema_extra={"enum": list(Status)})]


class ItemToOrder(BaseModel):
    """A product and how many of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    product_id: Annotated[int, Field(ge=1, le=MAX_ID), WHOLE]
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY), WHOLE]


class OrderToPlace(BaseModel):
    """What to order. Without `items` (or without a body) it is the customer's shopping cart."""

    model_config = ConfigDict(extra="forbid", strict=True)

    items: Annotated[list[ItemToOrder], Field(min_length=1, max_length=MAX_LINES)] | None = None


class NewStatus(BaseModel):
    """The status to move the order to. Upper and lower case are one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    status: Annotated[StatusName, Field(examples=["Confirmed"])]


class ListQuery(BaseModel):
    """Which orders, and how many at once."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[
        list[StatusName],
        Field(description="Only orders with one of these statuses. Without it: those that are placed."),
    ] = []
    limit: Annotated[int, Field(ge=1, le=1000, description="Orders per page.")] = 100
    cursor: Annotated[
        str | None,
        Field(description="From the page before: see `next`.", json_schema_extra={"pattern": f"^{CURSOR}$"}),
    ] = None


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
    created_at: datetime | None
    updated_at: datetime | None


class OrderList(BaseModel):
    """A page of orders, newest first. `next` is the address of the following page, or null."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"orders": [_ORDER_EXAMPLE], "next": "/orders?limit=1&cursor=AZqx4nw9ekGbUg1sPx6Kdw"}
        }
    )

    orders: list[Order]
    next: str | None


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


_ORDER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def parse_customer_id(text: str) -> int | None:
    """1 … 2^63-1 in plain digits, or None."""
    return int(text) if re.fullmatch(CUSTOMER_ID, text) and int(text) <= MAX_ID else None


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


def parse_status_or_refuse(text: str, pointer: str) -> Status:
    """The status that `text` names. Raises OrderError with the known ones."""
    status = parse_status(text)
    if status is None:
        known = ", ".join(Status)
        raise invalid(pointer, "unknown_status", f"{text[:40]!r} is not a status; the statuses are {known}.")
    return status


def cursor_for(order_id: UUID) -> str:
    """An opaque cursor: the page after this order."""
    return base64.urlsafe_b64encode(order_id.bytes).rstrip(b"=").decode()


def parse_cursor(cursor: str | None) -> UUID | None:
    """The order behind a cursor. Raises OrderError."""
    if cursor is None:
        return None
    if not re.fullmatch(CURSOR, cursor):
        raise invalid("query/cursor", "cursor_invalid", "This cursor is not one of ours; begin without.")
    return UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))


def invalid_fields(errors: Iterable[dict[str, Any]]) -> OrderError:
    """422 from what validation found."""
    found = [{"pointer": _pointer(e["loc"]), "code": e["type"], "message": _message(e)} for e in errors]
    where = ", ".join(str(e["pointer"]) for e in found[:3])
    return OrderError(Code.INVALID_REQUEST, f"The request is malformed at {where}.", extra={"errors": found})


def unknown_parameters(names: Iterable[str]) -> OrderError:
    """422 for query parameters where there are none."""
    message = "Extra inputs are not permitted"
    return invalid_fields({"loc": ("query", name), "type": "extra_forbidden", "msg": message} for name in names)


def _pointer(loc: tuple[str | int, ...]) -> str:
    place, *rest = loc
    if place == "body":
        rest = [] if rest and isinstance(rest[0], int) else rest  # not JSON: the number is an offset, no member
        return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in rest)
    return "/".join(str(part) for part in loc)


def _message(error: dict[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"The body is not JSON: {error.get('ctx', {}).get('error', '')} at character {error['loc'][-1]}."
    return f"{error['msg']}."


def problem_responses(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """What `/docs` says of these errors: one entry per HTTP status, an example per code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = code.value
        example = problem(OrderError(code, kind.advice), "/orders/42")
        entry = responses.setdefault(kind.status, {"description": kind.title, "content": _problem_content()})
        if kind.title not in entry["description"]:
            entry["description"] += f" · {kind.title}"
        if "Retry-After" in kind.advice:
            entry["headers"] = {"Retry-After": _RETRY_AFTER}
        entry["content"]["application/problem+json"]["examples"][example["code"]] = {"value": example}
    return responses


_RETRY_AFTER = {"description": "So many seconds later.", "schema": {"type": "integer", "minimum": 1}}


def _problem_content() -> dict[str, Any]:
    return {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}
