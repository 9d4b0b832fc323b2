"""Answers with lists: pages of orders, with their count if asked for, and pages of an order's events."""

import asyncio
import math
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from orders.errors import Code, OrderError
from orders.finding.filters import Filters, Position, Sort
from orders.finding.lists_sql import count_orders, list_orders, page_json
from orders.finding.past_sql import events_json, read_events
from orders.finding.query import PageQuery, next_url, parse_cursor
from orders.finding.service import Finding, finding
from orders.principal import Seer
from orders.wire.asking import seer_of
from orders.wire.costs import COUNT, ROWS, charge, take
from orders.wire.parameters import order_or_refuse

COUNT_FOR_S = 1.0
"""Timeout for counting a list, including the wait for its turn. A slower count is not worth a thread of the lists."""

TOTAL_HINT = f"Counting took longer than {COUNT_FOR_S:g} s. Add filters, or leave include_total out."


class EventsQuery(BaseModel):
    """The parameters for a page of an order's events."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000, description="Events per page.")] = 100
    after: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="Only events with a larger number: see `next`.", examples=[0])
    ] = 0


EventListing = Annotated[EventsQuery, Query()]


async def answer_orders(request: Request, query: PageQuery, customer_id: int | None) -> Response:
    """The answer with a page of a list of orders. Raises OrderError."""
    service, seer = finding(request), seer_of(request)
    filters, sort, after = await understand(query, service, customer_id)
    page = await service.read_list(lambda c: list_orders(c, seer, filters, sort, after, limit=query.limit))
    charge(request, len(page.orders) / ROWS)
    if customer_id is not None and filters == Filters(customer_id=customer_id) and not page.orders and after is None:
        raise OrderError(Code.NO_ORDERS_FOR_CUSTOMER, f"Customer {customer_id} has no orders.")
    more: dict[str, object] = {}
    if query.include_total:
        take(request, COUNT)
        count = await _count(service, seer, filters)
        more = {"total_count": count, **({"total_hint": TOTAL_HINT} if count is None else {})}
    asked = request.scope["query_string"].decode("latin-1")
    following = next_url(request.scope["path"], asked, query, filters, page.end)
    return Response(page_json(page, following, more), media_type="application/json")


async def understand(
    query: PageQuery, service: Finding, customer_id: int | None = None
) -> tuple[Filters, Sort, Position | None]:
    """The filters, the sort, and the position at which the page begins. Raises OrderError."""
    filters = query.to_filters(service.workflow, customer_id, await service.other_statuses(query))
    sort = query.to_sort()
    return filters, sort, parse_cursor(query.cursor, filters, sort)


async def _count(service: Finding, seer: Seer, filters: Filters) -> int | None:
    """Number of orders in the list, or None if counting takes too long. One list is counted at a time."""
    try:
        async with asyncio.timeout(COUNT_FOR_S), service.counting:
            return await service.read_list(lambda c: count_orders(c, seer, filters, math.ceil(COUNT_FOR_S * 1000)))
    except (TimeoutError, OrderError):
        return None


async def answer_events(request: Request, id: str, query: EventsQuery) -> Response:
    """The answer with a page of an order's events. Raises OrderError."""
    service, seer = finding(request), seer_of(request)
    order_id = order_or_refuse(id)
    page = await service.read_list(lambda c: read_events(c, order_id, seer, query.after, query.limit))
    if page is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
    charge(request, len(page.events) / ROWS)
    asked = urlencode({"limit": query.limit, "after": page.end})
    following = None if page.end is None else f"/orders/{order_id}/events?{asked}"
    return Response(events_json(page, following), media_type="application/json")
