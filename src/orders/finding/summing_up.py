"""Sums up days that are over, so that reports stay quick. One replica at a time does it."""

import logging
from datetime import date

from orders.finding.reports_sql import count_standings, sum_up_a_day
from orders.postgres.database import Database, Query
from orders.postgres.lanes import Lane
from orders.postgres.unavailable import DatabaseUnavailable

log = logging.getLogger(__name__)


async def sum_up_once(database: Database) -> bool:
    """Sum up one day's sales and one day's statuses. Returns whether there may be another day. Raises nothing."""
    return any([await _sum_up(database, a_day) for a_day in (sum_up_a_day, count_standings)])


async def _sum_up(database: Database, a_day: Query[date | None]) -> bool:
    """Sum up one day of one report. Returns whether there was one. An error in one report does not stop the other."""
    try:
        return await database.run(a_day, Lane.LISTS) is not None
    except DatabaseUnavailable as error:
        log.warning("summing up waits for the database: %s", error)
    except Exception:
        log.exception("a day could not be summed up")
    return False
