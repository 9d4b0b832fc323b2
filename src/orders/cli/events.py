"""The command about events: `orders events` prints the feed."""

import time
from typing import Annotated

import typer

from orders.cli.common import cli, settings_of
from orders.events.feed_sql import Page, read_feed
from orders.events.wanted import Wanted, parse_types
from orders.postgres.database import Database
from orders.startup import open_database

LOOK_S = 0.2
"""Pause between two looks for new events."""


@cli.command()
def events(
    after: Annotated[int, typer.Option(min=0, help="Only events with a larger position.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")] = False,
    types: Annotated[str, typer.Option(help="Only these types, with commas: order.placed,order.moved")] = "*",
) -> None:
    """Print the feed, one event per line (NDJSON), oldest first. Running replicas give events their positions."""
    wanted_types = parse_types(types)
    database = Database(open_database(settings_of()), threads=1)
    try:
        while True:
            page = _read(database, Wanted(after, limit=1000, types=wanted_types))
            for event in page.events:
                typer.echo(event)
            after = page.end
            if not (page.goes_on or follow):
                return
            if not page.goes_on:
                time.sleep(LOOK_S)
    except KeyboardInterrupt:
        return
    finally:
        database.close()


def _read(database: Database, wanted: Wanted) -> Page:
    return database.run_sync(lambda c: read_feed(c, wanted))
