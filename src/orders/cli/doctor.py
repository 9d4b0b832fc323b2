"""`orders doctor`: finds what is wrong with this installation, and says what a person can do about it."""

import asyncio
from collections.abc import Iterator

from orders.cli.doctor_neighbours import Finding, check_carts, check_catalog
from orders.neighbours.learnt_sql import NAMES, Key, digest, read_learnt
from orders.neighbours.reply import build_client
from orders.order.statuses import load_workflow
from orders.postgres.connecting import with_defaults
from orders.postgres.database import (
    Connection,
    DatabaseUnavailable,
    SchemaError,
    connect,
    newest_version,
    schema_version,
    wait_until_up,
)
from orders.relays.relays_sql import read_standings
from orders.settings import Settings, SettingsError
from orders.settings.unknown import unknown_settings
from orders.startup import database_dsn, require_workflow
from orders.stock.orphans_sql import Trouble, troubles
from orders.stock.witnesses_sql import Witnesses, witnesses


def examine(settings: Settings, product: int | None = None, customer: int | None = None) -> list[Finding]:
    """Examine everything, and change nothing. `product` and `customer` are requested from the neighbours.

    Raises SettingsError only if a setting can't be read. Everything else that is wrong is a Finding.
    """
    readable = Finding(True, "The settings can be read.")
    unknown = [Finding(False, sentence) for sentence in unknown_settings()]
    database, known = _database(settings)
    neighbours = asyncio.run(_neighbours(settings, known, product, customer))
    return [readable, *unknown, *database, *neighbours]


def _database(settings: Settings) -> tuple[list[Finding], Witnesses]:
    """Findings about the database, and products and customers that the neighbours should know."""
    dsn = database_dsn(settings)
    complete = with_defaults(dsn)
    try:
        wait_until_up(dsn, patience_s=3)
        connection = connect(complete)
    except DatabaseUnavailable as error:
        return [Finding(False, f"The database can't be reached: {error}")], Witnesses()
    except SettingsError as error:
        return [Finding(False, str(error))], Witnesses()
    answers = Finding(True, "The database answers.")
    try:
        found = [answers, *_tables(connection, dsn, settings)]
        return found, witnesses(connection) if schema_version(connection) else Witnesses()
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
    yield from _relays(connection, settings)
    yield from _fragile(connection, settings)


def _relays(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Findings about relays to brokers: those that are set, and those that are not any more."""
    names = {target.name for target in settings.relay_targets}
    for found in read_standings(connection):
        place = f"The relay {found.name} is at position {found.position}, {found.behind} events behind"
        if found.name not in names:
            yield Finding(
                False,
                f"{place}, and is not in ORDERS_RELAYS. If it is no more: `orders relay {found.name} "
                "--forget`; the feed keeps its events for it until then.",
            )
        elif found.error:
            yield Finding(False, f"{place}; its broker is away: {found.error}")
        else:
            yield Finding(True, f"{place}.")


def _fragile(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Findings about neighbours that can't take two calls at once."""
    urls = {"catalog": settings.catalog_url, "cart": settings.cart_url}
    keys = [Key(name, digest(url)) for name, url in urls.items() if url]
    for key, learnt in read_learnt(connection, keys).items():
        if learnt.is_fragile:
            yield Finding(False, f"{NAMES[key.name]} mixes up calls that overlap. {_FRAGILE}")


_FRAGILE = (
    "It gets one call at a time, so placing is slow. The usual cause is one database cursor that all threads share: "
    "open one for each request. Once that is mended, calls overlap again by themselves, within a day."
)


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


async def _neighbours(settings: Settings, known: Witnesses, product: int | None, customer: int | None) -> list[Finding]:
    client = build_client(settings.orders_neighbour_timeout_s)
    try:
        found = [_not_set("CATALOG_URL"), _not_set("CART_URL")]
        if settings.catalog_url:
            found[0] = await check_catalog(client, settings.catalog_url, known.products, product)
        if settings.cart_url:
            found[1] = await check_carts(client, settings.cart_url, known.customers, customer)
        return found
    finally:
        await client.close()


def _not_set(name: str) -> Finding:
    return Finding(False, f"{name} is not set. `orders dev` uses the sandbox; everything else needs it.")
