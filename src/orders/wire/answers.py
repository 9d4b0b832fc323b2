"""Answers that carry an order: its JSON as PostgreSQL built it, its version as ETag."""

from collections.abc import Mapping

from fastapi import Response

from orders.order.document import Document
from orders.order.idempotency import Answer
from orders.wire.dry_run import preview_response

ETAG_HEADER = {"ETag": {"description": "The order's version, quoted.", "schema": {"type": "string"}}}
"""The `ETag` header, as the document at /docs describes it."""


def etag(version: int) -> dict[str, str]:
    """The header with an order's version."""
    return {"ETag": f'"{version}"'}


def order_response(order: Document, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An order as the answer, with its version as ETag."""
    return Response(order.json, status, {**(headers or {}), **etag(order.version)}, "application/json")


def answered(answer: Answer, dry_run: bool = False) -> Response:
    if dry_run:
        return preview_response(answer)
    headers = {"Location": f"/orders/{answer.order_id}"} if answer.order_id else {}
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    if answer.status < 300:
        assert answer.version is not None  # its body is an order
        return order_response(Document(answer.version, answer.body), answer.status, headers)
    return Response(answer.body, answer.status, headers, "application/problem+json")
