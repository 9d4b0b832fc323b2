"""The commands that run servers: the service, and the sandbox to try it with."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from starlette.applications import Starlette

from orders.app import create_app, log_to_stderr
from orders.cli.common import CartPort, CatalogPort, Host, PortNumber, cli, fail, settings_of
from orders.cli.dev_key import dev_key
from orders.cli.dev_secret import THIS_MACHINE, kept_secret
from orders.sandbox.carts import SandboxCarts
from orders.sandbox.catalog import SandboxCatalog
from orders.settings import Settings
from orders.settings.address import shown
from orders.startup import open_database
from orders.wire.serving import PortTaken, bound_connections, options, require_free


class AccessMode(StrEnum):
    """The values of ORDERS_ACCESS, as an option."""

    LOCAL = "local"
    CLOSED = "closed"
    OPEN = "open"


@cli.command()
def dev(
    host: Host = None,
    port: PortNumber = None,
    catalog_port: CatalogPort = 8001,
    cart_port: CartPort = 8002,
    access: Annotated[
        AccessMode | None, typer.Option(help="ORDERS_ACCESS. `closed` makes a key, and keeps it in .data/dev-key.")
    ] = None,
) -> None:
    """Run everything: database, sandbox and service. Ctrl-C stops it; the data stays in .data/."""
    settings = settings_of(host=host, port=port, orders_access=access)
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
            "orders_secret": settings.orders_secret or kept_secret(settings.orders_data_dir),
            "orders_webhook_allow": settings.orders_webhook_allow or THIS_MACHINE,
        }
    )
    app = create_app(settings)
    dsn = open_database(settings)  # an error in the database or the table of statuses is told here, in a sentence
    key = dev_key(dsn, settings.orders_data_dir) if settings.orders_access == "closed" else None
    config = uvicorn.Config(app, settings.host, settings.port, **options(settings))
    _run(_Announcing(config, _welcome(settings, key)))


@cli.command()
def serve(
    host: Host = None,
    port: PortNumber = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes; each is a replica.")] = 1,
) -> None:
    """Run the service."""
    settings = settings_of(host=host, port=port)
    bound_connections(settings)
    create_app(settings)  # a missing setting is told once, not once per worker
    _require_free(settings)
    open_database(settings)  # an error in the database is told here, in a sentence
    typer.echo(f"orders listens on http://{settings.host}:{settings.port} (docs: /docs)")
    if who := _who_needs_a_key(settings):
        typer.echo(f"{who} need a key, and get 401 without: orders keys create --name NAME --as admin")
    if settings.orders_access == "local":
        typer.echo("Programs on this machine need no key, until there is one. Behind a proxy set ORDERS_ACCESS=closed.")
    # The workers read the environment again.
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
    except SystemExit as ended:  # uvicorn's code 3: it could not start
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
        fail(f"{which!r} is none of catalog, carts, both.", 2)
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


def _who_needs_a_key(settings: Settings) -> str:
    """The requests that need a key from the start. Empty if there are none."""
    if settings.orders_access == "closed":
        return "All requests"
    is_reached = settings.host not in ("127.0.0.1", "::1", "localhost")
    return "Requests from other machines" if settings.orders_access == "local" and is_reached else ""


def _require_free(settings: Settings) -> None:
    try:
        require_free(settings.host, settings.port, "--port or PORT")
    except PortTaken as taken:
        fail(str(taken), 1)


class _Announcing(uvicorn.Server):
    """A server that prints something once it listens."""

    def __init__(self, config: uvicorn.Config, words: str) -> None:
        super().__init__(config)
        self._words = words

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print."""
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
    """Serve an app until the process ends. The app is built in its own thread, because SQLite connections belong to a
    thread.
    """
    server = uvicorn.Server(uvicorn.Config(build, host, port, factory=True, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            fail(f"Nothing can listen on {host}:{port}; is something else running there?", 1)
        time.sleep(0.02)


def _welcome(settings: Settings, key: str | None) -> str:
    base = f"http://{settings.host}:{settings.port}"
    credential = f" \\\n       -H 'Authorization: Bearer {key}'" if key else ""
    database = "the one you named" if settings.has_database else f"embedded PostgreSQL in {settings.orders_data_dir}/"
    return f"""
  orders     {base}        docs: {base}/docs
  catalog    {shown(settings.catalog_url or "")}/products
  carts      {shown(settings.cart_url or "")}/carts
  database   {database}

Place an order:

  curl -i {base}/orders/42 -H 'Content-Type: application/json'{credential} \\
       -d '{{"items": [{{"product_id": 7, "quantity": 2}}]}}'

Ctrl-C stops everything; the data stays.
"""
