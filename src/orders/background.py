"""Background work, as a list of rounds. Every replica runs them, and so does `orders worker`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pyreqwest.client import Client

from orders.access.known_keys import KnownKeys
from orders.access.tokens import Tokens
from orders.changing.move import expire_once
from orders.events.purge_sql import purge_feed
from orders.finding.summing_up import sum_up_once
from orders.machinery import Machinery
from orders.postgres.database import DatabaseUnavailable
from orders.postgres.lanes import Lane
from orders.relays.relay import Relay
from orders.settings import Settings
from orders.webhooks.purge_sql import purge

log = logging.getLogger(__name__)

SUM_UP_S = 60.0
"""Pause between two looks for a day that is over."""

NEXT_DAY_S = 0.2
"""Pause between summing up two days. A large day takes a thread of the lists for a second, and lists get their turn in
between.
"""

ASSIGN_AGAIN_S = 0.005
"""Pause before the next round of the assigner if another replica's is under way, or if a walk goes on."""

ASSIGN_REST_S = 0.02
"""Shortest pause between two rounds of the assigner: at 200 orders per second, one commit serves four of them."""

FAILED_PAUSE_S = 1.0
"""Shortest pause after a round that failed: a database that is away is not asked, and logged, five times per second."""

SHARE_S = 1.0
"""Pause between two reads of what other replicas have learnt of the neighbours. Our own news is shared at once."""

ISSUER_S = 1.0
"""Pause between two looks at the age of the issuer's keys. The issuer itself is asked far less often."""


LOOK_S = 0.01
"""Shortest pause between two looks for webhooks with work. A look itself waits for news."""

PURGE_S = 60.0
"""Pause between two looks for old deliveries of webhooks, and for old events of the feed."""

PURGE_MORE_S = 0.1
"""Pause between deleting two lots of these: others get their turn at the database."""

RELAY_S = 0.0
"""Pause between two rounds of a relay, which waits itself if there is nothing to do."""

KEYS_S = 2.0
"""Pause between two reads of the API keys that are in use. A revocation has to hold within 5 s."""


@dataclass(frozen=True, slots=True)
class Round:
    """A piece of background work. `once` does it, is safe in any replica at any time, and returns whether there is
    more.

    `pause_s`: pause before the next round. `more_pause_s`: the same if there is more to do. `news` ends a pause early,
    but not before `rest_s` are over.
    """

    name: str
    once: Callable[[], Awaitable[object]]
    pause_s: float
    more_pause_s: float | None = None
    news: asyncio.Event | None = None
    rest_s: float = 0.0


def rounds(built: Machinery, settings: Settings) -> tuple[Round, ...]:
    """All rounds of background work."""
    interval_s = settings.orders_recovery_interval_s
    return (
        Round("expiry", lambda: expire_once(built.database, built.expiries), interval_s),
        Round("recovery", built.recovery.recover_once, interval_s),
        Round("summing up", lambda: sum_up_once(built.database), SUM_UP_S, more_pause_s=NEXT_DAY_S),
        Round(
            "giving events their positions",
            built.feed.assign_once,
            settings.orders_events_interval_s,
            more_pause_s=ASSIGN_AGAIN_S,
            news=built.database.changed,
            rest_s=ASSIGN_REST_S,
        ),
        Round("sharing what was learnt", built.learning.share_once, SHARE_S, news=built.learning.news),
        Round("sending to webhooks", built.webhooks.look_once, LOOK_S),
        Round(
            "deleting old deliveries to webhooks",
            lambda: built.database.run(lambda c: purge(c, settings.orders_webhook_keep_d), Lane.WEBHOOKS),
            PURGE_S,
            more_pause_s=PURGE_MORE_S,
        ),
        *rounds_of_relays(built.relays),
        *_keeping_the_feed_short(built, settings.orders_events_keep_d),
    )


def rounds_of_relays(relays: Sequence[Relay]) -> tuple[Round, ...]:
    """A round for each relay. It waits for news itself."""
    return tuple(Round(f"relay {relay.target.name}", relay.relay_once, RELAY_S) for relay in relays)


def _keeping_the_feed_short(built: Machinery, keep_days: float | None) -> tuple[Round, ...]:
    if keep_days is None:
        return ()

    async def once() -> bool:
        return await built.database.run(lambda c: purge_feed(c, keep_days), Lane.EVENTS)

    return (Round("deleting old events from the feed", once, PURGE_S, more_pause_s=PURGE_MORE_S),)


def rounds_of_credentials(keys: KnownKeys, tokens: Tokens | None, client: Client) -> tuple[Round, ...]:
    """The rounds of a process that answers requests: it reads API keys again, writes which were used, and fetches the
    keys of the tokens' issuer, if there is one.
    """
    of_keys = Round("API keys", keys.look_once, KEYS_S)
    if tokens is None:
        return (of_keys,)
    tokens.keys.connect(client)
    return of_keys, Round("fetching the issuer's keys", tokens.keys.refresh_once, ISSUER_S)


async def run_forever(work: Sequence[Round]) -> None:
    """Repeat each round forever, whatever errors occur in between."""
    await asyncio.gather(*(_repeat(one) for one in work))


async def _repeat(one: Round) -> None:
    while True:
        has_more = await _run(one)
        pause_s = one.more_pause_s if has_more and one.more_pause_s is not None else one.pause_s
        if has_more is None:
            await asyncio.sleep(max(pause_s, FAILED_PAUSE_S))
        else:
            await _pause(pause_s, one.news, min(one.rest_s, pause_s))


async def _run(one: Round) -> bool | None:
    """Whether there is more to do, or None after an error."""
    try:
        return bool(await one.once())
    except DatabaseUnavailable as error:
        log.warning("%s waits for the database: %s", one.name, error)
    except Exception:
        log.exception("a round of %s failed", one.name)
    return None


async def _pause(pause_s: float, news: asyncio.Event | None, rest_s: float) -> None:
    if news is None:
        await asyncio.sleep(pause_s)
        return
    await asyncio.sleep(rest_s)
    try:
        async with asyncio.timeout(pause_s - rest_s):
            await news.wait()
    except TimeoutError:
        return
    news.clear()
