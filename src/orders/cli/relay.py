"""The command about relays: `orders relay` sends the feed to a broker, beside the service or instead of it."""

import asyncio
from typing import Annotated

import typer

from orders.background import rounds_of_relays, run_forever
from orders.cli.common import cli, fail, settings_of
from orders.events.feed import Positions
from orders.order.statuses import load_workflow
from orders.postgres.database import Database
from orders.relays.relay import Relay
from orders.relays.relays_sql import forget as forget_relay
from orders.relays.sinks import sink_of
from orders.settings import Settings
from orders.settings.relays import Target
from orders.startup import open_database


@cli.command()
def relay(
    name: Annotated[str, typer.Argument(help="A relay in ORDERS_RELAYS: its name or, without one, its kind.")],
    after: Annotated[
        int | None, typer.Option(min=0, help="Go on after this position of the feed: back, or past what is refused.")
    ] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget how far it was, and stop: for a relay that there is no more.")
    ] = False,
) -> None:
    """Relay events to a broker until it is stopped. Running replicas do so, too; one of all relays at a time."""
    settings = settings_of()
    if forget:
        _forget(settings, name)
        return
    target = next((target for target in settings.relay_targets if target.name == name), None)
    if target is None:
        names = ", ".join(target.name for target in settings.relay_targets) or "none"
        fail(f"ORDERS_RELAYS has no relay {name!r}; there are: {names}.", 2)
    try:
        asyncio.run(_relay(settings, target, after))
    except KeyboardInterrupt:
        return


def _forget(settings: Settings, name: str) -> None:
    database = Database(open_database(settings), threads=1)
    try:
        if not database.run_sync(lambda c: forget_relay(c, name)):
            fail(f"There is no relay {name!r} that has relayed anything.", 1)
    finally:
        database.close()


async def _relay(settings: Settings, target: Target, after: int | None) -> None:
    sink, workflow = sink_of(target), load_workflow(settings.orders_workflow)
    database = Database(await asyncio.to_thread(open_database, settings), threads=1)
    one = Relay(database, Positions(), workflow, target, sink, settings.orders_event_source)
    try:
        if after is not None:
            await one.go_on_after(after)
        await run_forever(rounds_of_relays([one]))
    finally:
        await one.close()
        await asyncio.to_thread(database.close)
