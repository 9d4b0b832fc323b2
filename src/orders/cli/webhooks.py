"""`orders webhooks`: makes, changes and tests webhooks, in the database itself. `test` sends from this process."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, TypeVar
from uuid import UUID

import typer

from orders.cli.common import cli, cli_actor, fail, settings_of
from orders.cli.dev_secret import as_dev_has_it
from orders.events.feed import Positions
from orders.order.model import Author
from orders.order.named_types import CHANNEL
from orders.order.parsing import parse_order_id
from orders.order.statuses import load_workflow
from orders.postgres.database import Database
from orders.principal import SEES_EVERYTHING
from orders.settings import Settings
from orders.startup import open_database
from orders.version import VERSION
from orders.webhooks.addresses import Allowed
from orders.webhooks.deliveries_sql import DeliveryFilters, DeliveryView, Replay
from orders.webhooks.dispatch import Dispatch
from orders.webhooks.endpoint_views_sql import EndpointView
from orders.webhooks.endpoints import Added, Webhooks, key_for
from orders.webhooks.endpoints_sql import EndpointChange, NewEndpoint
from orders.webhooks.model import DeliveryState, Ordering, Payload
from orders.webhooks.resolving import Resolver
from orders.webhooks.schemas import MAX_DESCRIPTION, MAX_OVERLAP_H, Signature
from orders.webhooks.sending import Sender
from orders.webhooks.signing import Sealing
from orders.webhooks.wanted import FOR_REPLAYS, known

T = TypeVar("T")

AUTHOR = Author(cli_actor())
"""Whoever uses the command line, as the audit names them."""

webhooks = typer.Typer(no_args_is_help=True, help="Make, change and test webhooks, in the database itself.")
cli.add_typer(webhooks, name="webhooks")


WebhookId = Annotated[str, typer.Argument(metavar="ID", help="The webhook's ID.")]
Types = Annotated[str, typer.Option(help="What it gets, with commas: order.placed,order.moved")]


@webhooks.command(name="list")
def list_all() -> None:
    """List the webhooks, the oldest first, with how they do."""
    found = _with_webhooks(lambda webhooks: webhooks.all(SEES_EVERYTHING))
    for view in found:
        typer.echo(_line(view))
    if not found:
        typer.echo("There is no webhook.", err=True)


@webhooks.command()
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where messages are sent.")],
    types: Types = "order.*",
    payload: Annotated[Payload, typer.Option(help="With the order as of the event, or only where it is.")] = (
        Payload.FULL
    ),
    ordering: Annotated[Ordering, typer.Option(help="One order's events in their order, or as it happens.")] = (
        Ordering.ORDER
    ),
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Most messages on their way at once.")] = 8,
    channel: Annotated[str | None, typer.Option(help="Only events of orders of this channel.")] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    signature: Annotated[Signature, typer.Option(help="A shared secret, or a key pair.")] = Signature.V1,
    after: Annotated[
        int | None, typer.Option("--from", min=0, help="The position behind which it begins. Without it: from now on.")
    ] = None,
) -> None:
    """Make a webhook, and print its secret. It is never shown again."""
    if channel is not None and not re.fullmatch(CHANNEL, channel):
        fail("--channel: 1 to 64 of a-z 0-9 _ -", 2)
    if description is not None and len(description) > MAX_DESCRIPTION:
        fail(f"--description: at most {MAX_DESCRIPTION} characters.", 2)
    secret = key_for(signature.kind, None)
    new = NewEndpoint(url, _types(types), payload, ordering, concurrency, channel, description, after)
    made = _with_webhooks(lambda webhooks: webhooks.add(new, secret, AUTHOR))
    assert isinstance(made, Added)
    _show_once(made)


@webhooks.command()
def show(webhook_id: WebhookId) -> None:
    """Show a webhook: how it is set up, and how it does."""
    view = _with_webhooks(lambda webhooks: webhooks.find(_id(webhook_id), SEES_EVERYTHING))
    typer.echo(_line(view))
    health = view.health
    told = {
        "payload": view.payload,
        "ordering": f"{view.ordering}, {view.concurrency} at once",
        "channel": view.channel,
        "description": view.description,
        "public key": view.public_key,
        "position": f"{view.position}, {health.behind} behind the end of the feed",
        "24 hours": f"{health.delivered_24h} delivered, {health.failed_24h} given up",
        "made": f"{view.created_at:%Y-%m-%dT%H:%MZ} by {view.created_by}",
    }
    for name, text in told.items():
        if text is not None:
            typer.echo(f"  {name:<12} {text}")


@webhooks.command()
def test(webhook_id: WebhookId) -> None:
    """Send a test message at once, from here, and show what was sent and what came back."""
    sent = _with_webhooks(lambda webhooks: webhooks.test(_id(webhook_id), SEES_EVERYTHING))
    for name, value in sent.headers.items():
        typer.echo(f"> {name}: {value}")
    typer.echo(f"> {sent.body.decode()}")
    result = sent.result
    came = f"{result.status or result.error} after {result.ms} ms"
    typer.echo(f"< {came}" + (f": {result.reply}" if result.reply else ""))
    if not result.is_success:
        fail(f"It did not arrive: {result.error or result.status}.", 1)


@webhooks.command()
def deliveries(
    webhook_id: WebhookId,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
    type: Annotated[str | None, typer.Option(help="Only those of this type, like order.placed.")] = None,
    order: Annotated[str | None, typer.Option(help="Only those about the order with this ID.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most deliveries.")] = 50,
) -> None:
    """List what was sent to a webhook and what waits, newest first."""
    endpoint_id, order_id = _id(webhook_id), None if order is None else parse_order_id(order)
    if order is not None and order_id is None:
        fail(f"{order!r} is not an order's ID.", 2)

    async def read(webhooks: Webhooks) -> int:
        filters, shown = DeliveryFilters(state, type, order_id), 0
        while True:
            page, before = await webhooks.deliveries(endpoint_id, filters, min(limit - shown, 1000), SEES_EVERYTHING)
            for view in page:
                typer.echo(_delivery_line(view))
            shown += len(page)
            if before is None or shown >= limit:
                return shown
            filters = DeliveryFilters(state, type, order_id, before)

    if not _with_webhooks(read):
        typer.echo("There is no such delivery.", err=True)


@webhooks.command()
def replay(
    webhook_id: WebhookId,
    after: Annotated[int, typer.Option(min=0, help="Only events behind this position.")] = 0,
    until: Annotated[int | None, typer.Option(min=1, help="Only events up to this position.")] = None,
    types: Annotated[str | None, typer.Option(help="Only events of these types, with commas.")] = None,
    state: Annotated[
        DeliveryState | None, typer.Option(help="Only those whose last delivery is in this state, like failed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
) -> None:
    """Deliver events of a part of the feed again: 10,000 at most."""
    asked = Replay(after, until, None if types is None else _types(types, FOR_REPLAYS), state)
    count = _with_webhooks(
        lambda webhooks: webhooks.replay(_id(webhook_id), asked, AUTHOR, SEES_EVERYTHING, dry_run=dry_run)
    )
    what, is_done = ("event", "is") if count == 1 else ("events", "are")
    typer.echo(f"{count} {what} {'would be' if dry_run else is_done} delivered again.")


@webhooks.command()
def enable(
    webhook_id: WebhookId,
    from_now: Annotated[bool, typer.Option("--from-now", help="Leave out what it has not got.")] = False,
) -> None:
    """Enable a webhook. It goes on where it stopped, at once."""
    _change(webhook_id, EndpointChange(is_enabled=True, from_now=from_now))


@webhooks.command()
def disable(webhook_id: WebhookId) -> None:
    """Disable a webhook. Nothing is lost: its events wait."""
    _change(webhook_id, EndpointChange(is_enabled=False))


@webhooks.command()
def rotate(
    webhook_id: WebhookId,
    keep_old_for_h: Annotated[
        int, typer.Option(min=0, max=MAX_OVERLAP_H, help="Hours for which the old secret signs, too.")
    ] = 24,
) -> None:
    """Make a new secret, and print it. Messages are signed with both for a while."""
    keep = timedelta(hours=keep_old_for_h)
    _show_once(_with_webhooks(lambda webhooks: webhooks.rotate(_id(webhook_id), keep, AUTHOR, SEES_EVERYTHING)))


@webhooks.command()
def delete(webhook_id: WebhookId) -> None:
    """Delete a webhook with its deliveries. Nothing more is sent."""
    _with_webhooks(lambda webhooks: webhooks.delete(_id(webhook_id), AUTHOR, SEES_EVERYTHING))
    typer.echo(f"The webhook {webhook_id} is deleted.")


def _with_webhooks(do: Callable[[Webhooks], Awaitable[T]]) -> T:
    """What `do` returns, given the webhooks of the database."""
    return asyncio.run(_run(do, as_dev_has_it(settings_of())))


async def _run(do: Callable[[Webhooks], Awaitable[T]], settings: Settings) -> T:
    database = Database(await asyncio.to_thread(open_database, settings), threads=1)
    allowed = Allowed(settings.webhook_targets)
    resolver = Resolver(allowed)
    sealing = Sealing(settings.orders_secret) if settings.orders_secret else None
    sender = Sender(allowed, settings.orders_webhook_timeout_s, VERSION)
    workflow = load_workflow(settings.orders_workflow)
    dispatch = Dispatch(database, Positions(), workflow, sender, sealing, settings.webhook_pauses_s)
    try:
        return await do(Webhooks(database, dispatch, resolver, settings.orders_webhooks))
    finally:
        await dispatch.close()
        resolver.close()
        await asyncio.to_thread(database.close)


def _change(webhook_id: str, change: EndpointChange) -> None:
    view = _with_webhooks(lambda webhooks: webhooks.change(_id(webhook_id), change, None, AUTHOR, SEES_EVERYTHING))
    typer.echo(_line(view))


def _id(text: str) -> UUID:
    if (webhook_id := parse_order_id(text)) is None:  # a UUID, as an order's
        fail(f"{text!r} is no webhook's ID. `orders webhooks list` shows them.", 2)
    return webhook_id


def _types(text: str, of: tuple[str, ...] | None = None) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",")]
    return known(parts, of) if of else known(parts)


def _show_once(made: Added) -> None:
    """The secret on stdout, so that a script can keep it; what there is to know about it on stderr."""
    typer.echo(made.secret)
    public = f" Receivers verify with {made.endpoint.public_key}." if made.endpoint.public_key else ""
    typer.echo(f"This is the secret of webhook {made.endpoint.id}, and is not shown again.{public}", err=True)


def _line(view: EndpointView) -> str:
    health = view.health
    state = f"disabled ({view.disabled_reason})" if view.disabled_reason else health.state
    if health.failing_since and not view.disabled_reason:
        state = f"failing since {health.failing_since:%Y-%m-%dT%H:%MZ}"
    waiting = f"{health.waiting} waiting, {health.lag_s:.1f} s late" if health.waiting else "nothing waits"
    return f"{view.id}  {view.url}  {','.join(view.types)}  {state}  {waiting}"


def _delivery_line(view: DeliveryView) -> str:
    about = f"{view.order_id} {view.number} at {view.position}" if view.order_id else "notice"
    came = view.last_status or view.last_error or "-"
    at = f"{view.last_at or view.created_at:%Y-%m-%dT%H:%M:%SZ}"
    again = f" (round {view.round})" if view.round else ""
    return f"{view.id}  {at}  {view.type}  {about}  {view.state}{again}  {view.attempt_count} attempts  {came}"
