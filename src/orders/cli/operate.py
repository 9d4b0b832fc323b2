"""Commands for operating the service: migrate, worker, reconcile, doctor."""

import asyncio
import re
import sys
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any

import typer

from orders.app import log_to_stderr
from orders.background import rounds, run_forever
from orders.changing.move import expire_once
from orders.cli import doctor as checks
from orders.cli.common import cli, cli_actor, fail, settings_of
from orders.machinery import machinery
from orders.order.model import Author
from orders.order.statuses import load_workflow
from orders.postgres.database import migrate, newest_version, wait_until_up
from orders.settings import load_settings
from orders.startup import database_dsn, install_functions, set_workflow
from orders.stock.reconcile import Reconciliation, Undecided


@cli.command(name="migrate")
def migrate_tables() -> None:
    """Make or upgrade the tables, and put the table of statuses into the database."""
    settings = settings_of()
    workflow = load_workflow(settings.orders_workflow)
    dsn = database_dsn(settings)
    wait_until_up(dsn, patience_s=10)
    before = migrate(dsn)
    install_functions(dsn)
    set_workflow(dsn, workflow, replace=True, actor=cli_actor())
    typer.echo(f"The tables are at version {max(newest_version(), before or '')} (before: {before or 'none'}).")


@cli.command()
def worker(
    once: Annotated[bool, typer.Option("--once", help="One round, then stop.")] = False,
) -> None:
    """Do the background work: end what dead replicas began, cancel what expired, sum up days. Every replica does it."""
    settings = settings_of()

    async def work() -> None:
        async with machinery(settings) as built:
            if not once:
                await run_forever(rounds(built, settings))
            expired = await expire_once(built.database, built.expiries)
            recovered = await built.recovery.recover_once()
            await built.placement.drain()
            typer.echo(f"Looked after {recovered}, {expired} orders that expired.")

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        return


@cli.command()
def reconcile(
    products: Annotated[list[int] | None, typer.Argument(help="Product IDs; without: all that were ever sold.")] = None,
    accept: Annotated[list[int] | None, typer.Option(help="A product of which the catalog's figure is right.")] = None,
    restore: Annotated[list[int] | None, typer.Option(help="A product of which the record's figure is right.")] = None,
    set_to: Annotated[
        list[str] | None, typer.Option("--set", metavar="ID:FOUND=N", help="The catalog says FOUND, N were counted.")
    ] = None,
) -> None:
    """Compare the stock that the catalog has with the record of what was done to it; exit code 1 if one differs."""
    counts = [_count(text) for text in set_to or []]
    settings = settings_of()

    async def work() -> bool:
        async with machinery(settings) as built:
            reconciliation = Reconciliation(built.database, built.catalog, settings, Author(cli_actor()))
            decisions = [
                *(reconciliation.accept(product_id) for product_id in accept or []),
                *(reconciliation.restore(product_id) for product_id in restore or []),
                *(reconciliation.set(*count) for count in counts),
            ]
            if decisions:
                return await _decide(decisions)
            return await _compare(reconciliation, products)

    if not asyncio.run(work()):
        sys.exit(1)


async def _decide(decisions: Sequence[Coroutine[Any, Any, str]]) -> bool:
    is_done = True
    for decision in decisions:
        try:
            typer.echo(await decision)
        except Undecided as error:
            typer.echo(str(error), err=True)
            is_done = False
    return is_done


async def _compare(reconciliation: Reconciliation, products: Sequence[int] | None) -> bool:
    compared = differing = 0
    async for found in reconciliation.compare(products or ()):
        compared += 1
        differing += not found.is_well
        if products or not found.is_well:
            typer.echo(f"Product {found.product_id}: {found.sentence}")
        for line in found.advice:
            typer.echo(f"    {line}")
    typer.echo(f"{compared} products compared, {differing} want a look.")
    return differing == 0


def _count(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d{1,18}):(\d{1,18})=(\d{1,18})", text)
    if match is None:
        fail(f"--set {text}: write PRODUCT:FOUND=COUNTED, as in --set 7:9=12.", 2)
    product_id, found, counted = map(int, match.groups())
    return product_id, found, counted


@cli.command()
def doctor(
    product: Annotated[int | None, typer.Option(min=1, help="A product that the catalog has.")] = None,
    customer: Annotated[int | None, typer.Option(min=1, help="A customer who has an active cart.")] = None,
) -> None:
    """Check the settings, the database and the neighbours, and say what is wrong and what to do. Changes nothing."""
    log_to_stderr()
    findings = checks.examine(load_settings(), product, customer)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.is_well else 'BAD '} {finding.what}")
    if not all(finding.is_well for finding in findings):
        sys.exit(1)
