"""The bytes of a message. They are built when it is sent, and are the same at every attempt. Pure."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orders.webhooks.model import TYPE_PREFIX

MAX_BODY_BYTES = 64 * 1024
"""Maximum size of a message with the order in it. A larger one says where the order is."""


def body_of_event(event: Mapping[str, Any], order: Mapping[str, Any] | None) -> bytes:
    """The message about an event, with the order as of this event unless it is None, or too large.

    `event`: a row of `body_sql`, with the type as the history has it.
    """
    members = {name: value for name, value in event.items() if name not in ("type", "at")}
    head = {"type": TYPE_PREFIX + event["type"], "timestamp": event["at"]}
    body = _bytes({**head, "data": {**members, "order": order}})
    if order is None or len(body) <= MAX_BODY_BYTES:
        return body
    return _bytes({**head, "data": {**members, "order": None}})


def body_of_notice(type: str, created_at: datetime, notice: str) -> bytes:
    """The message of a notice, which is about webhooks. `notice` is a JSON object."""
    at = created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return _bytes({"type": type, "timestamp": at, "data": json.loads(notice)})


def _bytes(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
