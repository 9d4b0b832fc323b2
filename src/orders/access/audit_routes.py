"""The route of the audit."""

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from orders.access.audit_reading_sql import AuditFilters, read_audit
from orders.access.key_routes import known_keys
from orders.errors import Code, OrderError
from orders.order.model import MAX_ID
from orders.order.named_types import WITHOUT_NUL
from orders.postgres.lanes import Lane
from orders.principal import Scope
from orders.wire.asking import seer_of
from orders.wire.costs import ROWS, charge
from orders.wire.fast_routes import ReadingRoute
from orders.wire.operations import operation_id
from orders.wire.problems import problem_responses

router = APIRouter(tags=["audit"], route_class=ReadingRoute, generate_unique_id_function=operation_id)

Exactly = Annotated[str, Field(min_length=1, max_length=300, pattern=WITHOUT_NUL)]


class AuditQuery(BaseModel):
    """The parameters for a page of the audit."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000, description="Entries per page.")] = 100
    after: Annotated[
        int | None, Field(ge=1, le=MAX_ID, description="Only entries older than this one: see `next`.", examples=[57])
    ] = None
    action: Annotated[Exactly | None, Field(description="Only entries of this action.", examples=["key_created"])] = (
        None
    )
    actor: Annotated[
        Exactly | None, Field(description="Only what this actor did, written as in the entries.", examples=["key:shop"])
    ] = None


class AuditedAction(BaseModel):
    """Something that was done. `before` and `after` are what changed; which members they have depends on `action`."""

    id: int
    at: datetime
    actor: Annotated[str, Field(description="Like `local`, `cli:anna`, or `key:shop/anna@shop.example`.")]
    address: Annotated[str | None, Field(description="The client's IP address. Null: it was the command line.")]
    action: Annotated[str, Field(description="What was done; later versions add some.")]
    subject: Annotated[str | None, Field(description="What it was done to, like a key's ID.")]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None


_EXAMPLE: dict[str, Any] = {
    "id": 57,
    "at": "2026-11-28T08:00:00.271828Z",
    "actor": "cli:anna",
    "address": None,
    "action": "key_revoked",
    "subject": "k3V9aQ2m",
    "before": {"revoked_at": None},
    "after": {"revoked_at": "2026-11-28T08:00:00.271828Z"},
    "request_id": None,
}


class AuditPage(BaseModel):
    """Entries of the audit, newest first, and the address of the next page."""

    model_config = ConfigDict(json_schema_extra={"example": {"entries": [_EXAMPLE], "next": "/audit?limit=1&after=57"}})

    entries: list[AuditedAction]
    next: str | None


@router.get(
    "/audit",
    summary="Who did what",
    responses={
        200: {"model": AuditPage, "description": "A page of the audit, newest first"},
        **problem_responses(Code.NOT_PERMITTED, Code.INVALID_REQUEST, Code.DATABASE_UNAVAILABLE),
    },
)
async def list_audit(request: Request, query: Annotated[AuditQuery, Query()]) -> Response:
    """What was done that no order's history tells: to keys, to many orders at once, to the stock and to the table of
    statuses. Entries are never changed and never deleted.
    """
    if seer_of(request).channel is not None:
        raise OrderError(
            Code.NOT_PERMITTED,
            "The audit is of all channels, and this credential is of one.",
            extra={"required_scope": str(Scope.ACCESS_MANAGE)},
        )
    filters = AuditFilters(query.action, query.actor, query.after)
    rows, end = await known_keys(request).database.run(lambda c: read_audit(c, filters, query.limit), Lane.LISTS)
    charge(request, len(rows) / ROWS)
    page = AuditPage(
        entries=[AuditedAction.model_validate(row, from_attributes=True) for row in rows], next=_next(query, end)
    )
    return JSONResponse(page.model_dump(mode="json"))


def _next(query: AuditQuery, end: int | None) -> str | None:
    """The address of the page after the entry `end`."""
    if end is None:
        return None
    filters = {"action": query.action, "actor": query.actor}
    asked = {"limit": query.limit, "after": end, **{name: text for name, text in filters.items() if text is not None}}
    return f"/audit?{urlencode(asked)}"
