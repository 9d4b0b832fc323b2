"""Background work, as a list of rounds. Every replica runs them, and so does `orders worker`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from orders.changing.move import expire_once
from orders.finding.summing_up import sum_up_once
from orders.machinery import Machinery
from orders.postgres.database import DatabaseUnavailable
from orders.settings import Settings

log = logging.getLogger(__name__)

SUM_UP_S = 60.0
"""Pause between two looks for a day that is over."""

NEXT_DAY_S = 0.2
"""Pause between two days that are summed up: a large one takes a thread of the lists for a second, and lists have their
turn in between.
"""

SHARE_S = 1.0
"""Pause between two looks at what other replicas have learnt of the neighbours. News of our own is shared at once."""


@dataclass(frozen=True, slots=True)
class Round:
    """A piece of background work. `once` does it, safely anywhere and at any time, and tells whether there is more.

    `pause_s` until the next one; `more_pause_s` where there is more; `news` ends a pause early.
    """

    name: str
    once: Callable[[], Awaitable[object]]
    pause_s: float
    more_pause_s: float | None = None
    news: asyncio.Event | None = None


def rounds(built: Machinery, settings: Settings) -> tuple[Round, ...]:
    """All background work there is."""
    interval_s = settings.orders_recovery_interval_s
    return (
        Round("expiry", lambda: expire_once(built.database, built.expiries), interval_s),
        Round("recovery", built.recovery.recover_once, interval_s),
        Round("summing up", lambda: sum_up_once(built.database), SUM_UP_S, more_pause_s=NEXT_DAY_S),
        Round("sharing what was learnt", built.learning.share_once, SHARE_S, news=built.learning.news),
    )


async def run_forever(work: Sequence[Round]) -> None:
    """Each round again and again, whatever happens in between."""
    await asyncio.gather(*(_repeat(one) for one in work))


async def _repeat(one: Round) -> None:
    while True:
        has_more = await _run(one)
        await _pause(one.more_pause_s if has_more and one.more_pause_s is not None else one.pause_s, one.news)


async def _run(one: Round) -> bool:
    try:
        return bool(await one.once())
    except DatabaseUnavailable as error:
        log.warning("%s waits for the database: %s", one.name, error)
    except Exception:
        log.exception("a round of %s failed", one.name)
    return False


async def _pause(pause_s: float, news: asyncio.Event | None) -> None:
    if news is None:
        await asyncio.sleep(pause_s)
        return
    try:
        async with asyncio.timeout(pause_s):
            await news.wait()
    except TimeoutError:
        return
    news.clear()
