"""`orders listen`: events of a running service, sent to a program on this machine as webhooks would be."""

import asyncio
from typing import Annotated

import typer

from orders.cli.common import cli, fail
from orders.webhooks.listening import Asked, Listening, Refused
from orders.webhooks.signing import SignatureKind, SigningKey, given_key, new_key


@cli.command()
def listen(
    to: Annotated[str, typer.Option(help="Where your program takes webhooks: http://localhost:3000/hook")],
    types: Annotated[str, typer.Option(help="Only these types, with commas: order.placed,order.moved")] = "*",
    after: Annotated[int | None, typer.Option(min=0, help="Begin behind this position. Without it: now.")] = None,
    server: Annotated[str, typer.Option(help="The service.")] = "http://localhost:8000",
    key: Annotated[str | None, typer.Option(help="An API key with events:read; with orders:read for `order`.")] = None,
    secret: Annotated[str | None, typer.Option(help="A `whsec_…` to sign with. Without it: a new one.")] = None,
) -> None:
    """Send each event of a running service to your program, signed as a webhook would be, in order. Ctrl-C ends it."""
    for name, url in (("--to", to), ("--server", server)):
        if not url.startswith(("http://", "https://")):
            fail(f"{name}: an address begins with http:// or https://", 2)
    signing = _signing(secret)
    typer.echo(f"signed with {signing.text}")
    asked = Asked(server.rstrip("/"), key, types, after)
    try:
        asyncio.run(Listening(asked, to, signing, typer.echo).run())
    except Refused as refused:
        fail(str(refused), 1)
    except KeyboardInterrupt:
        return


def _signing(secret: str | None) -> SigningKey:
    try:
        return new_key(SignatureKind.V1) if secret is None else given_key(secret)
    except ValueError as error:
        fail(f"--secret: {error}", 2)
