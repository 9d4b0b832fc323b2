"""What the OpenAPI document can't say, told to schemathesis."""

import uuid
from typing import Any

import schemathesis

from orders.describe import check_metadata
from orders.order import MAX_QUANTITY


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A key is good for one request only; with another it is refused, which is right and nothing to be reported."""
    if "Idempotency-Key" in (case.headers or {}) and case.meta and not case.meta.generation.mode.is_negative:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())


@schemathesis.hook
def filter_body(context: Any, body: Any) -> bool:
    """Lines of one product are summed, and a sum has the same limit as a line. Metadata are limited as a whole."""
    if isinstance(body, dict) and isinstance(body.get("metadata"), dict):
        try:
            check_metadata(body["metadata"])
        except ValueError:
            return False
    lines = body.get("items") if isinstance(body, dict) else None
    quantities = [line.get("quantity") for line in lines or () if isinstance(line, dict)]
    return sum(q for q in quantities if isinstance(q, int | float)) <= MAX_QUANTITY or len(quantities) == 1
