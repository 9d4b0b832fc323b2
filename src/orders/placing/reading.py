"""READ: the products of a batch, all at once. Each client is answered at its own deadline."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence

from orders.errors import OrderError
from orders.neighbours.catalog import Catalog, Product
from orders.placing.entry import Entry
from orders.placing.planning import Read
from orders.placing.refusals import not_read, took_too_long
from orders.placing.sorting import products_of


async def read_products(
    catalog: Catalog, entries: Sequence[Entry], flow: Hashable, refuse: Callable[[Entry, OrderError], None]
) -> Read:
    """Read what these entries need. Returns when all is read, or nobody waits for it any more.

    `refuse` is called for an entry whose deadline comes meanwhile. `flow` is on whose behalf (see Limiter).
    """
    reads = {p: asyncio.create_task(catalog.read(p, flow)) for p in sorted(products_of(entries))}
    await _wait_for(reads.values(), entries, refuse)
    products: dict[int, Product] = {}
    errors: dict[int, OrderError] = {}
    for product_id, read in reads.items():
        if read.cancel():
            read.add_done_callback(_ignore)
            errors[product_id] = took_too_long()
        elif error := read.exception():
            errors[product_id] = not_read(error)
        elif product := read.result():
            products[product_id] = product
    return Read(products, errors)


async def _wait_for(
    reads: Iterable[asyncio.Task[Product | None]],
    entries: Sequence[Entry],
    refuse: Callable[[Entry, OrderError], None],
) -> None:
    now = asyncio.get_running_loop().time
    pending, waiting = set(reads), list(entries)
    while pending and waiting:
        timeout_s = min(entry.deadline for entry in waiting) - now()
        _, pending = await asyncio.wait(pending, timeout=max(0.0, timeout_s))
        for late in [entry for entry in waiting if pending and entry.deadline <= now()]:
            waiting.remove(late)
            refuse(late, took_too_long())


def _ignore(read: asyncio.Task[Product | None]) -> None:
    """Read the error that a cancelled task may end with all the same, or the log has a stack trace of it."""
    if not read.cancelled():
        read.exception()
