"""What every route needs of the service, and how operations are named."""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from fastapi.routing import APIRoute

from orders.batching import Batcher
from orders.checkout import Checkout
from orders.database import Connection, Database
from orders.dry_run import Rehearsal
from orders.store.reading import read_orders
from orders.workflow import Workflow


def operation_id(route: APIRoute) -> str:
    """What the OpenAPI document calls an operation: the name of its function."""
    return route.name


LOADS_AT_ONCE = 2
"""Queries for orders by ID that run at once; the next batch gathers meanwhile."""


T = TypeVar("T")

SLOW_READS_AT_ONCE = 2
"""Reports and pages of exports that are read at once; the other threads are for placing."""


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
            lambda ids: database.run(lambda c: read_orders(c, ids)), parallel=LOADS_AT_ONCE
        )
        self.slow_reads = asyncio.Semaphore(SLOW_READS_AT_ONCE)

    async def read_slowly(self, query: Callable[[Connection], T]) -> T:
        """A query that may take seconds: it waits for its turn, so that placing always finds a database thread."""
        async with self.slow_reads:
            return await self.database.run(query)
