"""The parts that are built from settings inside an event loop. They are closed in the opposite order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pyreqwest.client import Client

from orders.events.feed import Feed
from orders.neighbours.capacity import Capacity
from orders.neighbours.carts import Carts
from orders.neighbours.catalog import Catalog
from orders.neighbours.learning import Learning
from orders.neighbours.learnt_sql import NAMES, Key, digest
from orders.neighbours.neighbour import Neighbour
from orders.neighbours.reply import build_client
from orders.neighbours.turns import Turns
from orders.order.statuses import Workflow, load_workflow
from orders.placing.cart_closing import CartClosing
from orders.placing.queue import Placement
from orders.placing.recovery import Recovery
from orders.postgres import embedded
from orders.postgres.database import Database, DatabaseUnavailable
from orders.relays.relay import Relay
from orders.relays.sink import Sink
from orders.relays.sinks import sink_of
from orders.settings import Settings
from orders.settings.address import shown
from orders.startup import expiries, open_database, require_neighbours
from orders.version import VERSION
from orders.webhooks.addresses import Allowed
from orders.webhooks.dispatch import Dispatch
from orders.webhooks.sending import Sender
from orders.webhooks.signing import Sealing
from orders.wire.connections import connections_allowed

DRAIN_S = 20.0
"""Timeout for batches that are under way at a shutdown. Recovery ends what is left then."""


@dataclass(frozen=True, slots=True)
class Machinery:
    """The parts that are built from settings inside an event loop, for the app and for `orders worker`."""

    database: Database
    client: Client
    catalog: Catalog
    carts: Carts
    closing: CartClosing
    placement: Placement
    recovery: Recovery
    learning: Learning
    feed: Feed
    webhooks: Dispatch
    relays: tuple[Relay, ...]
    workflow: Workflow
    expiries: Mapping[str, timedelta]


@contextlib.asynccontextmanager
async def machinery(settings: Settings) -> AsyncIterator[Machinery]:
    """Start all parts. At the end, let batches that are under way finish, and stop the parts in the opposite order."""
    catalog_url, cart_url = require_neighbours(settings)
    workflow = load_workflow(settings.orders_workflow)
    may_stay = expiries(settings, workflow)
    sinks = [sink_of(target) for target in settings.relay_targets]
    dsn = await asyncio.to_thread(open_database, settings)
    database = Database(dsn, settings.orders_db_threads)
    client = build_client(settings.orders_neighbour_timeout_s)
    keys = Key("catalog", digest(shown(catalog_url))), Key("cart", digest(shown(cart_url)))  # digests without passwords
    neighbours = [_neighbour(key, database, client, settings) for key in keys]
    learning = Learning(database, {key: n.capacity for key, n in zip(keys, neighbours, strict=True)})
    catalog, carts = Catalog(neighbours[0]), Carts(neighbours[1])
    closing = CartClosing(database, carts)
    placement = Placement(database, catalog, closing, settings)
    recovery = Recovery(database, catalog, placement, closing, settings)
    feed = _feed(database, settings)
    webhooks = _webhooks(database, feed, workflow, settings)
    relays = _relays(database, feed, workflow, settings, sinks)
    try:
        with contextlib.suppress(DatabaseUnavailable):  # for example a standby; the rounds try again
            await learning.share_once()
        yield Machinery(
            database,
            client,
            catalog,
            carts,
            closing,
            placement,
            recovery,
            learning,
            feed,
            webhooks,
            relays,
            workflow,
            may_stay,
        )
    finally:
        await asyncio.gather(_drain(placement, closing), webhooks.close(), *(relay.close() for relay in relays))
        await asyncio.gather(*(neighbour.capacity.close() for neighbour in neighbours), return_exceptions=True)
        await client.close()
        await asyncio.to_thread(database.close)
        if not settings.has_database:
            await asyncio.to_thread(embedded.stop, settings.orders_data_dir)


async def _drain(placement: Placement, closing: CartClosing) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await placement.drain()
            await closing.drain()


def _neighbour(key: Key, database: Database, client: Client, settings: Settings) -> Neighbour:
    is_catalog = key.name == "catalog"
    name = NAMES[key.name]
    bound = settings.catalog_concurrency if is_catalog else settings.cart_concurrency
    call_s = settings.orders_neighbour_timeout_s
    return Neighbour(
        name,
        (settings.catalog_url if is_catalog else settings.cart_url) or "",
        client,
        settings.orders_breaker_failures,
        settings.orders_breaker_rest_s,
        Capacity(name, bound, call_s, Turns(database, key, call_s)),
    )


def _feed(database: Database, settings: Settings) -> Feed:
    places = min(settings.orders_streams, connections_allowed(settings.orders_connections) // 2)
    return Feed(database, places, fills_outbox=settings.orders_outbox)


def _webhooks(database: Database, feed: Feed, workflow: Workflow, settings: Settings) -> Dispatch:
    sender = Sender(Allowed(settings.webhook_targets), settings.orders_webhook_timeout_s, VERSION)
    sealing = Sealing(settings.orders_secret) if settings.orders_secret else None
    return Dispatch(database, feed.positions, workflow, sender, sealing, settings.webhook_pauses_s)


def _relays(
    database: Database, feed: Feed, workflow: Workflow, settings: Settings, sinks: Sequence[Sink]
) -> tuple[Relay, ...]:
    source, targets = settings.orders_event_source, settings.relay_targets
    return tuple(
        Relay(database, feed.positions, workflow, target, sink, source)
        for target, sink in zip(targets, sinks, strict=True)
    )
