"""The part of the application that the routes of finding need: database, table of statuses, and limits
for slow reads.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from fastapi import Request

from orders.coalescing import Coalescer
from orders.errors import Code, OrderError
from orders.finding.lists_sql import statuses_there_are
from orders.finding.query import OrderFilters
from orders.order.document import Document
from orders.order.document_sql import read_orders
from orders.order.statuses import Workflow
from orders.postgres.database import Connection, Database
from orders.postgres.lanes import Lane
from orders.postgres.unavailable import DatabaseBusy
from orders.principal import Seer

LOADS_AT_ONCE = 2
"""Number of queries for orders by ID that run at once. The next batch gathers meanwhile."""

LOAD = 100
"""Maximum number of orders in one such query: the largest orders have 170 kB each."""


T = TypeVar("T")


class Finding:
    """Reads orders. Reads by ID that arrive together become one query. Lists and reports wait for their turn."""

    def __init__(self, database: Database, workflow: Workflow) -> None:
        self.database = database
        self.workflow = workflow
        self._orders: Coalescer[tuple[UUID, Seer], Document] = Coalescer(
            lambda wanted: database.run(lambda c: read_orders(c, wanted), Lane.READS), parallel=LOADS_AT_ONCE, size=LOAD
        )
        # If the lists have two threads or more, one is for lists alone: a report may take eight seconds.
        self.slow_reads = asyncio.Semaphore(max(1, database.threads_of(Lane.LISTS) - 1))
        self.counting = asyncio.Semaphore(1)

    async def read_order(self, order_id: UUID, seer: Seer) -> Document | None:
        """The order, or None if there is none that the seer sees. Orders of several seers share a query."""
        return await self._orders.get((order_id, seer))

    async def read_list(self, query: Callable[[Connection], T]) -> T:
        """The result of a list's query, on a thread that placing does not need. Raises OrderError if there is too much
        to do.
        """
        try:
            return await self.database.run(query, Lane.LISTS)
        except DatabaseBusy:
            raise OrderError(Code.TOO_SLOW, "Too many lists are asked for at once.", retry_after_s=5) from None

    async def other_statuses(self, query: OrderFilters) -> list[str]:
        """The statuses that orders have, if the query names one that is not in the table. Raises OrderError."""
        if not query.names_unknown_status(self.workflow):
            return []
        return await self.read_list(statuses_there_are)

    async def read_slowly(self, query: Callable[[Connection], T]) -> T:
        """The result of a report's query, which may take seconds. It waits for its turn. Raises OrderError as above."""
        async with self.slow_reads:
            return await self.read_list(query)


def finding(request: Request) -> Finding:
    """The Finding of the application that the request came to."""
    service: Finding = request.app.state.finding
    return service
