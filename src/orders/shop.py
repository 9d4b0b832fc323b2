"""What every route needs of the service, and how operations are named."""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from fastapi.routing import APIRoute

from orders.batching import Batcher
from orders.dry_run import Rehearsal
from orders.errors import Code, OrderError
from orders.finding.lists_sql import statuses_there_are
from orders.finding.query import OrderFilters
from orders.order.document_sql import read_orders
from orders.order.statuses import Workflow
from orders.placing.checkout import Checkout
from orders.postgres.database import Connection, Database
from orders.postgres.lanes import Lane
from orders.postgres.unavailable import DatabaseBusy


def operation_id(route: APIRoute) -> str:
    """What the OpenAPI document calls an operation: the name of its function."""
    return route.name


LOADS_AT_ONCE = 2
"""Queries for orders by ID that run at once; the next batch gathers meanwhile."""

LOAD = 100
"""Maximum orders in one such query: the largest orders are 170 kB each."""


T = TypeVar("T")


class Shop:
    """What the routes need: the database, the use cases, the table of statuses, and reads by ID that are answered
    together. `needs_if_match`: whether changing an order does.
    """

    def __init__(
        self, database: Database, checkout: Checkout, workflow: Workflow, needs_if_match: bool, rehearsal: Rehearsal
    ) -> None:
        self.database = database
        self.checkout = checkout
        self.rehearsal = rehearsal
        self.workflow = workflow
        self.needs_if_match = needs_if_match
        self.orders: Batcher[UUID, str] = Batcher(
            lambda ids: database.run(lambda c: read_orders(c, ids), Lane.READS), parallel=LOADS_AT_ONCE, size=LOAD
        )
        # Of the threads of the lists one is for lists alone, where there are two: a report may take eight seconds.
        self.slow_reads = asyncio.Semaphore(max(1, database.threads_of(Lane.LISTS) - 1))
        self.counting = asyncio.Semaphore(1)

    async def read_list(self, query: Callable[[Connection], T]) -> T:
        """A query of a list, on a thread that nobody needs for placing. Raises OrderError: there is too much to do."""
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
        """A query of a report, which may take seconds: it waits for its turn. Raises OrderError as above."""
        async with self.slow_reads:
            return await self.read_list(query)
