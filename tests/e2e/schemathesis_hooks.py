"""What the OpenAPI document can't say, told to schemathesis."""

import uuid
from typing import Any

import schemathesis

from orders.events.parameters import MAX_WAIT_S
from orders.order.details import check_metadata
from orders.order.model import MAX_QUANTITY


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A key is good for one request only; with another it is refused, which is right and nothing to be reported. What
    waits for an event waits for a moment: nothing may come.
    """
    if _is_seconds((case.query or {}).get("wait")):
        case.query["wait"] = 0.01
    if "Idempotency-Key" in (case.headers or {}) and case.meta and not case.meta.generation.mode.is_negative:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())


@schemathesis.hook
def filter_body(context: Any, body: Any) -> bool:
    """Lines of one product are summed, and a sum has the same limit as a line. A batch names an order or a key once.
    Metadata are limited as a whole.
    """
    entries = body.get("orders") if isinstance(body, dict) else None
    if isinstance(entries, list):
        once = all(_names_each_once(entries, member) for member in ("id", "idempotency_key"))
        return once and all(_has_small_metadata(entry) for entry in entries)
    if not _has_small_metadata(body):
        return False
    lines = body.get("items") if isinstance(body, dict) else None
    quantities = [line.get("quantity") for line in (lines if isinstance(lines, list) else ()) if isinstance(line, dict)]
    return sum(q for q in quantities if isinstance(q, int | float)) <= MAX_QUANTITY or len(quantities) == 1


def _is_seconds(wait: Any) -> bool:
    try:
        return 0 < float(wait) <= MAX_WAIT_S
    except (TypeError, ValueError):
        return False


def _has_small_metadata(body: Any) -> bool:
    if isinstance(body, dict) and isinstance(body.get("metadata"), dict):
        try:
            check_metadata(body["metadata"])
        except ValueError:
            return False
    return True


def _names_each_once(entries: list[Any], member: str) -> bool:
    given = [str(entry[member]).lower() for entry in entries if isinstance(entry, dict) and entry.get(member)]
    return len(given) == len(set(given))
