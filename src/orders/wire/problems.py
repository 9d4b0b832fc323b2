"""Problem documents: errors that validation found, and what `/docs` says of errors."""

from collections.abc import Iterable, Sequence
from typing import Any

from orders.errors import Code, OrderError, invalid, problem
from orders.order.schema import ID_EXAMPLE

READ_PROBLEMS = (Code.INVALID_REQUEST, Code.DATABASE_UNAVAILABLE)
"""Errors that every request which reads the database may get."""

MAX_ERRORS = 20
"""Maximum number of errors that an answer names. If there are more, `error_count` tells how many."""


def invalid_fields(errors: Sequence[dict[str, Any]]) -> OrderError:
    """The error (422) for what validation found."""
    found = [{"pointer": _pointer(e["loc"]), "code": e["type"], "message": _message(e)} for e in errors[:MAX_ERRORS]]
    where = ", ".join("its body" if e["pointer"] == "#" else str(e["pointer"]) for e in found[:3])
    extra = {"errors": found, **({"error_count": len(errors)} if len(errors) > MAX_ERRORS else {})}
    return OrderError(Code.INVALID_REQUEST, f"The request is malformed at {where}.", extra=extra)


def refused_parameters(names: Iterable[str], why: str = "There is no parameter {!r}.") -> OrderError:
    """The error (422) for query parameters that have no meaning where they are. `why` has a place for the name."""
    found = [(f"query/{name[:60]}", why.format(name[:60])) for name in names]
    errors = [{"pointer": pointer, "code": "extra_forbidden", "message": message} for pointer, message in found]
    return OrderError(Code.INVALID_REQUEST, " ".join(message for _, message in found[:3]), extra={"errors": errors})


def repeated_parameter(name: str) -> OrderError:
    """The error (422) for a query parameter that takes one value and came with several."""
    return invalid(f"query/{name[:60]}", "duplicate", f"{name[:60]}: send it once.")


def _pointer(loc: tuple[str | int, ...]) -> str:
    place, *rest = loc
    if place == "body":
        rest = [] if rest and isinstance(rest[0], int) else rest  # not JSON: the number is an offset, not a member
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
    """The part of `/docs` about these errors: one entry per HTTP status, one example per code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = code.value
        detail, extra = _PROBLEM_EXAMPLES.get(code, (kind.advice, {}))
        # the operation's address replaces "/" when the OpenAPI document is built
        example = problem(OrderError(code, detail, extra=extra), "/")
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
    Code.NOT_PERMITTED: (
        "This needs the scope orders:change, which this credential does not have.",
        {"required_scope": "orders:change"},
    ),
    Code.RATE_LIMITED: (
        "This credential may ask for 10 requests per second, 30 after a rest. Large requests count for several.",
        {"violated_policies": ["default"]},
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
"""The `detail` and the further members of errors whose document has more members than every error has."""


_RETRY_AFTER = {"description": "Seconds to wait before the next try.", "schema": {"type": "integer", "minimum": 1}}


def _problem_content() -> dict[str, Any]:
    return {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}
