"""Parsers for texts in addresses and headers: IDs, keys, versions, moments. What can't be read is refused in a
sentence.
"""

import re
from collections.abc import Container
from datetime import datetime
from uuid import UUID

from orders.errors import invalid
from orders.order.model import MAX_ID
from orders.order.statuses import Workflow

CUSTOMER_ID = "[1-9][0-9]{0,18}"
"""Pattern of a customer's ID in an address. The maximum is 2^63-1, which a pattern can't say."""


ANY_CUSTOMER_ID = "-?[1-9][0-9]{0,18}|0"
"""Pattern of the ID of a customer whose orders are read: orders adopted from the simpler service have
-2^63 … 2^63-1.
"""


KEY = r'"(?:[!#-\[\]-~]|\\["\\]){1,255}"|[!#-~][!-~]{0,254}'
"""Pattern of an `Idempotency-Key`: 1 … 255 visible ASCII characters, quoted (an RFC 9651 string) or bare."""


CURSOR = "[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"
"""Pattern of a cursor: 32 bytes in URL-safe base64, without padding."""


_ORDER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


_ETAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')


_ETAGS = re.compile(rf"[\s,]*{_ETAG.pattern}(\s*,[\s,]*{_ETAG.pattern})*[\s,]*")


_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+ -]\d\d:\d\d)", re.ASCII)


def parse_customer_id(text: str) -> int | None:
    """The ID, 1 … 2^63-1 in plain digits, or None."""
    return int(text) if re.fullmatch(CUSTOMER_ID, text) and int(text) <= MAX_ID else None


def parse_any_customer_id(text: str) -> int | None:
    """The ID, -2^63 … 2^63-1 in plain digits, or None."""
    is_one = re.fullmatch(ANY_CUSTOMER_ID, text, re.ASCII) and -MAX_ID - 1 <= int(text) <= MAX_ID
    return int(text) if is_one else None


def parse_order_id(text: str) -> UUID | None:
    """The UUID in its usual form, or None."""
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
    """The status that `text` names. Raises OrderError with a list of the statuses."""
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
    # a weak ETag comes from a proxy on the way, and must not decide about a change
    is_weak_enough = header == "If-None-Match"
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
            return datetime.fromisoformat(text.upper().replace(" ", "+"))  # an unescaped + arrives as a space
    except ValueError:
        pass
    raise invalid("query/at", "at_invalid", "at: a version like 2, or a time like 2026-11-24T08:00:00Z.")
