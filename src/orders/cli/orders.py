"""The commands about orders: show, move, export, and the table of statuses."""

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from orders.changing.apply import ForReal
from orders.changing.move import change_status
from orders.changing.rules import Asked
from orders.cli.common import OrderIdOrNumber, cli, fail, settings_of
from orders.cli.export_file import ExportFailed, Format, export_file, format_of, read_statuses
from orders.finding.history import all_events
from orders.finding.past_sql import orders_of_request
from orders.finding.query import parse_filters
from orders.order.document_sql import find_order, read_orders
from orders.order.model import Author
from orders.order.parsing import parse_order_id, parse_status_or_refuse
from orders.order.statuses import load_workflow
from orders.postgres.database import Database, DatabaseUnavailable
from orders.principal import SEES_EVERYTHING
from orders.startup import open_database
from orders.wire.parameters import REQUEST_ID


@cli.command()
def show(
    order: Annotated[
        str,
        typer.Argument(metavar="ORDER", help="Its ID or number; or a request's ID (reads all history)."),
    ],
) -> None:
    """Print an order as the API has it, with its events; of a request, every order that it changed."""
    database = Database(open_database(settings_of()), threads=1)
    for order_id in _find_all(database, order):
        wanted = (order_id, SEES_EVERYTHING)
        found = database.run_sync(lambda c, w=wanted: read_orders(c, [w]))[wanted]  # type: ignore[misc]
        events = list(all_events(database, order_id, SEES_EVERYTHING))
        typer.echo(json.dumps({**json.loads(found.json), "events": events}, indent=2, ensure_ascii=False))
    database.close()


def _find_all(database: Database, named: str) -> list[UUID]:
    """The order with this ID or number, or the orders that the request with this ID changed."""
    is_orders = parse_order_id(named) is not None or (named.isdecimal() and len(named) < 19)
    if is_orders or not re.fullmatch(REQUEST_ID, named):
        return [find_order_id(database, named)]
    try:
        found = database.run_sync(lambda c: orders_of_request(c, named, SEES_EVERYTHING))
    except DatabaseUnavailable as error:
        fail(f"The history was not searched to its end: {error}. Name the order by its ID or number.", 1)
    if not found:
        fail(f"No order has an event of the request {named}.", 1)
    return found


@cli.command()
def move(
    order: OrderIdOrNumber,
    status: Annotated[str, typer.Argument(help="The status to move it to.")],
    note: Annotated[str | None, typer.Option(help="Why, for the order's history.")] = None,
    actor: Annotated[str, typer.Option(help="Who, for the order's history.")] = "cli",
) -> None:
    """Move an order to another status, by the same rules as the API."""
    settings = settings_of()
    wanted = parse_status_or_refuse(status, "status", load_workflow(settings.orders_workflow))
    database = Database(open_database(settings), threads=1)
    order_id = find_order_id(database, order)
    asyncio.run(change_status(ForReal(database, SEES_EVERYTHING), order_id, wanted, Asked(Author(actor), note=note)))
    database.close()
    typer.echo(f"Order {order} is {wanted}.")


@cli.command()
def workflow(
    file: Annotated[Path | None, typer.Argument(help="A TOML file; without: the table that is set.")] = None,
) -> None:
    """Check a table of statuses, and print it as a Mermaid diagram."""
    typer.echo(load_workflow(file or settings_of().orders_workflow).mermaid(), nl=False)


def find_order_id(database: Database, order: str) -> UUID:
    order_id = parse_order_id(order)
    if order_id is None and not (order.isdecimal() and len(order) < 19):
        fail(f"{order!r} is no order's ID and no order's number.", 2)
    found = database.run_sync(
        lambda c: find_order(c, order_id, int(order) if order_id is None else None, SEES_EVERYTHING)
    )
    if found is None:
        fail(f"There is no order {order}.", 1)
    return found


@cli.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; - is the standard output.")],
    file_format: Annotated[
        Format | None, typer.Option("--format", "-f", help="What to write; without it what the file's name ends with.")
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", help="As in the address of a list: status=paid, created_at\\[gte]=2026-11-01. May repeat."
        ),
    ] = None,
) -> None:
    """Write orders to a file: CSV and Parquet have a line per item, NDJSON one per order. Oldest first."""
    settings = settings_of()
    try:
        kind = file_format or format_of(output)
    except ExportFailed as error:
        fail(str(error), 2)
    try:
        dsn = open_database(settings)
        wanted = parse_filters(filters or [], load_workflow(settings.orders_workflow), lambda: read_statuses(dsn))
        count = asyncio.run(export_file(dsn, wanted, kind, output))
    except ExportFailed as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail("Stopped; nothing was written.", 1)
    typer.echo(f"{count} orders are in {output}.", err=True)
