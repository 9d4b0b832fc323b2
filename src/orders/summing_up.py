"""Days that are over are summed up, so that reports stay quick. Runs in every replica, one at a time in all of them."""

import asyncio
import logging

from orders.database import Database, DatabaseUnavailable
from orders.store.reports import count_standings, sum_up_a_day

log = logging.getLogger(__name__)

PAUSE_S = 0.2
"""Between two days: a large one takes a database thread for a second, and placing has its turn in between."""

IDLE_S = 60.0


async def sum_up_forever(database: Database) -> None:
    """A day's sales and a day's standings, again and again, whatever happens in between."""
    while True:
        has_more = False
        try:
            for sum_up in (sum_up_a_day, count_standings):
                has_more |= await database.run(sum_up) is not None
        except DatabaseUnavailable as error:
            log.warning("summing up waits for the database: %s", error)
        except Exception:
            log.exception("a day could not be summed up")
        await asyncio.sleep(PAUSE_S if has_more else IDLE_S)
