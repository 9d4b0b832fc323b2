"""Answers that carry an order: its JSON as PostgreSQL built it, its version as ETag."""

import re
from collections.abc import Mapping

from fastapi import Response

from orders.order.idempotency import Answer
from orders.wire.dry_run import preview_response

ETAG_HEADER = {"ETag": {"description": "The order's version, quoted.", "schema": {"type": "string"}}}
"""The `ETag` header, as the document at /docs describes it."""

_VERSION = re.compile(r'"version" : ([0-9]+)')
"""Finds the version in an order's JSON as PostgreSQL builds it. No text can forge it: quotes in a text are escaped, and
jsonb puts no space before a colon.
"""


def order_response(body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An order's JSON as the answer, with its version as ETag."""
    version = _VERSION.search(body)
    assert version is not None
    return Response(body, status, {**(headers or {}), "ETag": f'"{version[1]}"'}, "application/json")


def answered(answer: Answer, dry_run: bool = False) -> Response:
    if dry_run:
        return preview_response(answer)
    headers = {"Location": f"/orders/{answer.order_id}"} if answer.order_id else {}
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    if answer.status < 300:
        return order_response(answer.body, answer.status, headers)
    return Response(answer.body, answer.status, headers, "application/problem+json")
