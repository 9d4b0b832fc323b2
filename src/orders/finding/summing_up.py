"""Days that are over are summed up, so that reports stay quick. Runs in every replica, one at a time in all of them."""

import asyncio
import logging
from datetime import date

from orders.finding.reports_sql import count_standings, sum_up_a_day
from orders.postgres.database import Database, DatabaseUnavailable, Query
from orders.postgres.lanes import Lane

log = logging.getLogger(__name__)

PAUSE_S = 0.2
"""Between two days: a large one takes a thread of the lists for a second, and lists have their turn in between."""

IDLE_S = 60.0


async def sum_up_forever(database: Database) -> None:
    """A day's sales and a day's standings, again and again, whatever happens in between."""
    while True:
        has_more = [await _sum_up(database, a_day) for a_day in (sum_up_a_day, count_standings)]
        await asyncio.sleep(PAUSE_S if any(has_more) else IDLE_S)


async def _sum_up(database: Database, a_day: Query[date | None]) -> bool:
    """Whether there was a day to sum up. What goes wrong with the one report does not keep the other."""
    try:
        return await database.run(a_day, Lane.LISTS) is not None
    except DatabaseUnavailable as error:
        log.warning("summing up waits for the database: %s", error)
    except Exception:
        log.exception("a day could not be summed up")
    return False
