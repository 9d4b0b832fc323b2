"""What is wrong with this installation, in words, and what a person can do about it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from orders.app import database_dsn, require_workflow
from orders.cart import Carts
from orders.catalog import Catalog
from orders.database import (
    Connection,
    DatabaseUnavailable,
    SchemaError,
    connect,
    newest_version,
    schema_version,
    wait_until_up,
    with_defaults,
)
from orders.neighbour import Neighbour
from orders.reply import NoAnswer, NotSent, Rubbish, build_client
from orders.settings import Settings, SettingsError
from orders.store.recovering import Trouble, troubles
from orders.workflow import load_workflow

ANY_ID = 1
"""The neighbours are asked for product 1 and for customer 1's cart; "not found" is a fine answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    is_well: bool
    what: str


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; never raises for what it finds."""
    readable = Finding(True, "The settings can be read.")
    return [readable, *_database(settings), *asyncio.run(_neighbours(settings))]


def _database(settings: Settings) -> Iterator[Finding]:
    try:
        dsn = database_dsn(settings)
        wait_until_up(dsn, patience_s=3)
        connection = connect(with_defaults(dsn))
    except DatabaseUnavailable as error:
        yield Finding(False, f"The database can't be reached: {error}")
        return
    yield Finding(True, "The database answers.")
    try:
        yield from _tables(connection, dsn, settings)
    finally:
        connection.close()


def _tables(connection: Connection, dsn: str, settings: Settings) -> Iterator[Finding]:
    version = schema_version(connection)
    if version is None or version < newest_version():
        yield Finding(
            False, f"The tables are at version {version or 'none'}, not {newest_version()}: `orders migrate`."
        )
        return
    yield Finding(True, f"The tables are at version {version}.")
    yield _workflow(dsn, settings)
    found = troubles(connection)
    yield from (Finding(False, _sentence(trouble)) for trouble in found)
    if not found:
        yield Finding(True, "No product's stock is in doubt.")


def _workflow(dsn: str, settings: Settings) -> Finding:
    try:
        require_workflow(dsn, load_workflow(settings.orders_workflow), settings)
    except (SettingsError, SchemaError) as error:
        return Finding(False, str(error))
    return Finding(True, "The table of statuses is the one that is set.")


def _sentence(trouble: Trouble) -> str:
    advice = {
        "in doubt": "The catalog did not say whether it took the new stock. Recovery asks it again every second; if "
        "this stays, see whether the catalog answers for this product. Its orders have failed; nobody else writes it.",
        "not taken back": "Stock that is due back can't be given back. See whether the catalog still has the product.",
        "drifted": "Someone else changed the stock while ours was in doubt; nobody can tell which came first. "
        f"Count it, and see `orders reconcile {trouble.product_id}`.",
    }
    return f"Product {trouble.product_id}: stock {trouble.kind} since {trouble.since}. {advice[trouble.kind]}"


async def _neighbours(settings: Settings) -> list[Finding]:
    client = build_client(settings.orders_neighbour_timeout_s)
    try:
        return [
            await _ask(
                "CATALOG_URL",
                settings.catalog_url,
                lambda url: Catalog(Neighbour("It", url, client, 9, 1)).read(ANY_ID),
            ),
            await _ask(
                "CART_URL", settings.cart_url, lambda url: Carts(Neighbour("It", url, client, 9, 1)).read(ANY_ID)
            ),
        ]
    finally:
        await client.close()


async def _ask(name: str, url: str | None, ask: Callable[[str], Awaitable[object]]) -> Finding:
    if url is None:
        return Finding(False, f"{name} is not set. `orders dev` uses the sandbox; everything else needs it.")
    try:
        await ask(url)
    except (NotSent, NoAnswer) as error:
        return Finding(False, f"{name} ({url}): {error}.")
    except Rubbish as error:
        return Finding(False, f"{name} ({url}) answers, but not as the contract says: {error}.")
    return Finding(True, f"{name} ({url}) answers as the contract says.")
