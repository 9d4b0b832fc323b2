"""The command line. Errors are one clear sentence and an exit code: 2 for a setting, 1 for everything else."""

import asyncio
import atexit
import json
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn
from uuid import UUID

import typer
import uvicorn
from starlette.applications import Starlette

from orders.address import shown
from orders.app import VERSION, create_app, log_to_stderr, machinery
from orders.changing.move import Asked, change_status
from orders.cli import doctor as checks
from orders.cli.export_file import ExportFailed, Format, export_file, format_of, read_statuses
from orders.errors import Code, OrderError
from orders.finding.history import all_events
from orders.finding.past_sql import orders_of_request
from orders.finding.query import parse_filters
from orders.order.document_sql import find_order, read_orders
from orders.order.model import Author
from orders.order.parsing import parse_order_id, parse_status_or_refuse
from orders.order.statuses import load_workflow
from orders.placing.recovery import summary
from orders.postgres.database import Database, DatabaseUnavailable, SchemaError, migrate, newest_version, wait_until_up
from orders.sandbox.carts import SandboxCarts
from orders.sandbox.catalog import SandboxCatalog
from orders.settings import Settings, SettingsError, load_settings
from orders.startup import database_dsn, install_functions, open_database, set_workflow
from orders.stock.reconcile import Reconciliation, Undecided
from orders.unknown_settings import tell_unknown
from orders.wire.parameters import REQUEST_ID
from orders.wire.serving import PortTaken, bound_connections, options, require_free

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

OrderIdOrNumber = Annotated[str, typer.Argument(metavar="ORDER", help="The order's ID or number.")]
Host = Annotated[str | None, typer.Option(help="The address to listen on.")]
PortNumber = Annotated[int | None, typer.Option(min=1, max=65535, help="The port to listen on.")]
CatalogPort = Annotated[int, typer.Option(min=1, max=65535, help="The sandbox catalog's port.")]
CartPort = Annotated[int, typer.Option(min=1, max=65535, help="The sandbox carts' port.")]


def main() -> NoReturn:
    """The entry point.

    The HTTP client's threads may still be at work when all is done; an interpreter that takes itself apart under them
    now and then aborts. So it does not: what is to be done at exit is done, and the process ends.
    """
    code: int | str | None = 0
    try:
        _run_command()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else bool(code))


def _run_command() -> None:
    try:
        cli()
    except SettingsError as error:
        _fail(str(error), 2)
    except OrderError as error:
        _fail(error.detail, 2 if error.code is Code.INVALID_REQUEST else 1)
    except (DatabaseUnavailable, SchemaError) as error:
        _fail(str(error), 1)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"orders {VERSION}")
        raise typer.Exit


@cli.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An order management service that never oversells, never loses and never doubles an order."""


@cli.command()
def dev(
    host: Host = None, port: PortNumber = None, catalog_port: CatalogPort = 8001, cart_port: CartPort = 8002
) -> None:
    """Run everything: database, sandbox and service. Ctrl-C stops it; the data stays in .data/."""
    settings = _settings(host=host, port=port)
    bound_connections(settings)
    _require_free(settings)
    data = settings.orders_data_dir / "sandbox"
    if settings.catalog_url is None:
        _serve_in_thread(lambda: SandboxCatalog(data / "catalog.db").app(), settings.host, catalog_port)
    if settings.cart_url is None:
        _serve_in_thread(lambda: SandboxCarts(data / "carts.db").app(), settings.host, cart_port)
    settings = settings.model_copy(
        update={
            "catalog_url": settings.catalog_url or f"http://{settings.host}:{catalog_port}",
            "cart_url": settings.cart_url or f"http://{settings.host}:{cart_port}",
        }
    )
    app = create_app(settings)
    open_database(settings)  # what is wrong with it, or with its table of statuses, is said here, in a sentence
    config = uvicorn.Config(app, settings.host, settings.port, **options(settings))
    _run(_Announcing(config, _welcome(settings)))


@cli.command()
def serve(
    host: Host = None,
    port: PortNumber = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes; each is a replica.")] = 1,
) -> None:
    """Run the service."""
    settings = _settings(host=host, port=port)
    bound_connections(settings)
    create_app(settings)  # says at once what a setting is missing, not once per worker
    _require_free(settings)
    open_database(settings)  # what is wrong with it is said here, in a sentence
    typer.echo(f"orders listens on http://{settings.host}:{settings.port} (docs: /docs)")
    # The workers read the environment by themselves.
    os.environ.update(HOST=settings.host, PORT=str(settings.port))
    try:
        uvicorn.run(
            "orders.app:app_of_serve",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=workers,
            **options(settings),
        )
    except SystemExit as ended:  # uvicorn's 3: it could not start
        sys.exit(1 if ended.code else 0)


@cli.command()
def sandbox(
    which: Annotated[str, typer.Argument(help="catalog, carts or both.")] = "both",
    host: Host = None,
    catalog_port: CatalogPort = 8001,
    cart_port: CartPort = 8002,
    data: Annotated[Path | None, typer.Option(help="Where to keep its files; without: in memory.")] = None,
    samples: Annotated[bool, typer.Option(help="Begin with a few sample products.")] = True,
    inline_items: Annotated[bool, typer.Option(help="Give a cart's items inside the cart.")] = True,
) -> None:
    """Run a small Product Catalog Service and a small Shopping Cart Service, with faults to switch on (PUT /faults)."""
    if which not in ("catalog", "carts", "both"):
        _fail(f"{which!r} is none of catalog, carts, both.", 2)
    log_to_stderr()
    address = host or "127.0.0.1"
    files = {name: data / f"{name}.db" if data else None for name in ("catalog", "carts")}
    if which in ("catalog", "both"):
        _serve_in_thread(lambda: SandboxCatalog(files["catalog"], samples).app(), address, catalog_port)
        typer.echo(f"catalog  http://{address}:{catalog_port}/products")
    if which in ("carts", "both"):
        _serve_in_thread(lambda: SandboxCarts(files["carts"], inline_items).app(), address, cart_port)
        typer.echo(f"carts    http://{address}:{cart_port}/carts")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return


@cli.command(name="migrate")
def migrate_tables() -> None:
    """Make or upgrade the tables, and put the table of statuses into the database."""
    settings = _settings()
    workflow = load_workflow(settings.orders_workflow)
    dsn = database_dsn(settings)
    wait_until_up(dsn, patience_s=10)
    before = migrate(dsn)
    install_functions(dsn)
    set_workflow(dsn, workflow, replace=True)
    typer.echo(f"The tables are at version {max(newest_version(), before or '')} (before: {before or 'none'}).")


@cli.command()
def worker(
    once: Annotated[bool, typer.Option("--once", help="One round, then stop.")] = False,
) -> None:
    """Recover what dead replicas left: end their batches, give stock back, close carts. Every replica does this too."""
    settings = _settings()

    async def work() -> None:
        async with machinery(settings) as built:
            if not once:
                await built.recovery.run_forever()
            done = await built.recovery.recover_once()
            await built.placement.drain()
            typer.echo(f"Looked after {summary([done])}")

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        return


@cli.command()
def show(
    order: Annotated[
        str,
        typer.Argument(metavar="ORDER", help="Its ID or number; or a request's ID (reads all history)."),
    ],
) -> None:
    """Print an order as the API has it, with its events; of a request, every order that it changed."""
    database = Database(open_database(_settings()), threads=1)
    for order_id in _find_all(database, order):
        body = database.run_sync(lambda c, i=order_id: read_orders(c, [i]))[order_id]  # type: ignore[misc]
        events = list(all_events(database, order_id))
        typer.echo(json.dumps({**json.loads(body), "events": events}, indent=2, ensure_ascii=False))
    database.close()


def _find_all(database: Database, named: str) -> list[UUID]:
    """The order of this ID or number, or those that the request of this ID changed."""
    is_orders = parse_order_id(named) is not None or (named.isdecimal() and len(named) < 19)
    if is_orders or not re.fullmatch(REQUEST_ID, named):
        return [_find(database, named)]
    try:
        found = database.run_sync(lambda c: orders_of_request(c, named))
    except DatabaseUnavailable as error:
        _fail(f"The history was not searched to its end: {error}. Name the order by its ID or number.", 1)
    if not found:
        _fail(f"No order has an event of the request {named}.", 1)
    return found


@cli.command()
def move(
    order: OrderIdOrNumber,
    status: Annotated[str, typer.Argument(help="The status to move it to.")],
    note: Annotated[str | None, typer.Option(help="Why, for the order's history.")] = None,
    actor: Annotated[str, typer.Option(help="Who, for the order's history.")] = "cli",
) -> None:
    """Move an order to another status, by the same rules as the API."""
    settings = _settings()
    wanted = parse_status_or_refuse(status, "status", load_workflow(settings.orders_workflow))
    database = Database(open_database(settings), threads=1)
    order_id = _find(database, order)
    asyncio.run(change_status(database, order_id, wanted, Asked(Author(actor), note=note)))
    database.close()
    typer.echo(f"Order {order} is {wanted}.")


@cli.command()
def workflow(
    file: Annotated[Path | None, typer.Argument(help="A TOML file; without: the table that is set.")] = None,
) -> None:
    """Check a table of statuses, and print it as a Mermaid diagram."""
    typer.echo(load_workflow(file or _settings().orders_workflow).mermaid(), nl=False)


def _find(database: Database, order: str) -> UUID:
    order_id = parse_order_id(order)
    if order_id is None and not (order.isdecimal() and len(order) < 19):
        _fail(f"{order!r} is no order's ID and no order's number.", 2)
    found = database.run_sync(lambda c: find_order(c, order_id, int(order) if order_id is None else None))
    if found is None:
        _fail(f"There is no order {order}.", 1)
    return found


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
    settings = _settings()

    async def work() -> bool:
        async with machinery(settings) as built:
            reconciliation = Reconciliation(built.database, built.catalog, settings)
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
        _fail(f"--set {text}: write PRODUCT:FOUND=COUNTED, as in --set 7:9=12.", 2)
    product_id, found, counted = map(int, match.groups())
    return product_id, found, counted


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
    settings = _settings()
    try:
        kind = file_format or format_of(output)
    except ExportFailed as error:
        _fail(str(error), 2)
    try:
        dsn = open_database(settings)
        wanted = parse_filters(filters or [], load_workflow(settings.orders_workflow), lambda: read_statuses(dsn))
        count = asyncio.run(export_file(dsn, wanted, kind, output))
    except ExportFailed as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("Stopped; nothing was written.", 1)
    typer.echo(f"{count} orders are in {output}.", err=True)


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


def _settings(**given: object) -> Settings:
    log_to_stderr()
    tell_unknown()
    return load_settings(**{name: value for name, value in given.items() if value is not None})


def _require_free(settings: Settings) -> None:
    try:
        require_free(settings.host, settings.port, "--port or PORT")
    except PortTaken as taken:
        _fail(str(taken), 1)


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(sentence, err=True)
    sys.exit(code)


class _Announcing(uvicorn.Server):
    """A server that says something once it listens."""

    def __init__(self, config: uvicorn.Config, words: str) -> None:
        super().__init__(config)
        self._words = words

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then speak."""
        await super().startup(sockets)
        if self.started:
            typer.echo(self._words)


def _run(server: uvicorn.Server) -> None:
    try:
        server.run()
    except KeyboardInterrupt:
        typer.echo("Stopped.")
    if not server.started:
        sys.exit(1)


def _serve_in_thread(build: Callable[[], Starlette], host: str, port: int) -> None:
    """Serve an app (built in its own thread: SQLite connections stay where they were made) until the process ends."""
    server = uvicorn.Server(uvicorn.Config(build, host, port, factory=True, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            _fail(f"Nothing can listen on {host}:{port}; is something else running there?", 1)
        time.sleep(0.02)


def _welcome(settings: Settings) -> str:
    base = f"http://{settings.host}:{settings.port}"
    database = "the one you named" if settings.has_database else f"embedded PostgreSQL in {settings.orders_data_dir}/"
    return f"""
  orders     {base}        docs: {base}/docs
  catalog    {shown(settings.catalog_url or "")}/products
  carts      {shown(settings.cart_url or "")}/carts
  database   {database}

Place an order:

  curl -i {base}/orders/42 -H 'Content-Type: application/json' \\
       -d '{{"items": [{{"product_id": 7, "quantity": 2}}]}}'

Ctrl-C stops everything; the data stays.
"""


if __name__ == "__main__":
    main()
