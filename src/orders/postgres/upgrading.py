"""Upgrades the tables: all pending migrations in one transaction. The log says who holds a lock that it waits for.

Every other statement on a table queues behind a migration that waits for that table. So the migration waits only a
moment for a lock, gives up, and begins again once the holders are gone. Meanwhile an older service that still runs goes
on.
"""

import logging
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import psycopg2.errors

from orders.postgres.connecting import Connection, SchemaError, connect
from orders.postgres.unavailable import BROKEN, DatabaseUnavailable, explained

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "orders_schema_version"
_MIGRATION_LOCK = 0x6F726465  # "orde": any number that only we use; held during the migration

_LOCK_TIMEOUT_S = 1.0
"""Timeout for a lock on a table. Other statements queue behind the migration meanwhile: no longer than behind a slow
one.
"""

_PAUSE_S = 4.0
"""Maximum pause before the next attempt while the holders stay. With it, others wait behind us a fifth of the time at
most.
"""

_LOOK_S = 0.2
"""Pause between two looks of the second connection at the holders of the lock."""

_TELL_EVERY_S = 5.0
"""Minimum pause between two log lines about the holders. The first line comes at once."""

_NOT_NOW = (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected)

_HOLDERS = r"""
SELECT pid, usename, application_name, coalesce(host(client_addr), 'this machine'), state, xact_start,
    upper(substring(query FROM '^\s*([A-Za-z]+)'))
FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(%s)) ORDER BY xact_start
"""

_STILL_THERE = """
SELECT count(*) FROM pg_stat_activity
    JOIN unnest(%s::int[], %s::timestamptz[]) AS holder (pid, xact_start) USING (pid)
WHERE pg_stat_activity.xact_start IS NOT DISTINCT FROM holder.xact_start
"""


class _Holder(NamedTuple):
    """A session that holds a lock which the migration waits for.

    `statement` is only its first word, because the rest may be private. Values that this role may not see are None.
    """

    pid: int
    role: str | None
    application: str | None
    address: str | None
    state: str | None
    since: datetime | None
    statement: str | None

    def __str__(self) -> str:
        if self.state is None:
            return f"pid {self.pid}, role {self.role} (a member of pg_monitor could see what it does)"
        who = f"{self.application or 'nameless'} at {self.address}, role {self.role}"
        since = f"{self.since:%Y-%m-%d %H:%M:%S%z}" if self.since else "?"
        return f"pid {self.pid} ({who}): {self.state}, in a transaction since {since}, {self.statement or '?'}"


def upgrade(dsn: str) -> None:
    """Run all pending migrations. Wait as long as sessions hold the tables.

    Raises DatabaseUnavailable or SchemaError.
    """
    watch = _Watch(connect(dsn))
    try:
        while not _attempt(dsn, watch):
            watch.pause()
    finally:
        watch.close()


def _attempt(dsn: str, watch: "_Watch") -> bool:
    """Try once. Returns whether the tables are upgraded. If not, someone holds a lock, and nothing was changed."""
    # Imported here: Alembic and SQLAlchemy take longer to load than opening a database at the right version takes.
    import sqlalchemy  # noqa: PLC0415
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(dsn))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(engine=engine, version_table=VERSION_TABLE, lock=_MIGRATION_LOCK)
    config.attributes.update(begin=watch.begin, lock_timeout_ms=int(_LOCK_TIMEOUT_S * 1000))
    try:
        command.upgrade(config, "head")
    except sqlalchemy.exc.DBAPIError as error:
        if isinstance(error.orig, _NOT_NOW):
            return False
        if isinstance(error.orig, BROKEN):
            raise explained(error.orig, is_broken=True) from None
        raise SchemaError(f"The tables could not be made: {str(error.orig).strip()}") from None
    finally:
        watch.end()
        engine.dispose()
    return True


class _Watch:
    """A second connection, with a thread that watches who holds the lock that the migration waits for, and logs it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._migrating: int | None = None
        self._holders: list[_Holder] = []
        self._told_at = float("-inf")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="migration-watch", daemon=True)
        self._thread.start()

    def begin(self, pid: int) -> None:
        """Note that the migration's transaction begins, in the server process `pid`."""
        self._holders, self._migrating = [], pid

    def end(self) -> None:
        """Note that the transaction has ended."""
        self._migrating = None

    def pause(self) -> None:
        """Wait until the holders' transactions are over, or for at most _PAUSE_S."""
        holders, give_up_at = self._holders, time.monotonic() + _PAUSE_S
        self._say(holders)
        time.sleep(_LOOK_S)
        while time.monotonic() < give_up_at and self._are_there(holders):
            time.sleep(_LOOK_S)

    def close(self) -> None:
        """End the thread, and the connection."""
        self._is_over.set()
        self._thread.join(timeout=5)
        self._connection.close()

    def _look_on(self) -> None:
        try:
            while not self._is_over.wait(_LOOK_S):
                if pid := self._migrating:
                    self._look(pid)
        except psycopg2.Error as error:  # the migration itself will notice if the database is away
            log.warning("the watch on who holds the tables has ended: %s", " ".join(str(error).split()))

    def _look(self, pid: int) -> None:
        found = [_Holder(*row) for row in self._ask(_HOLDERS, (pid,))]
        if found and self._migrating == pid:
            self._holders = found
            self._say(found)

    def _say(self, holders: list[_Holder]) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            who = "; ".join(map(str, holders)) or "someone"
            log.warning("the tables can't be upgraded yet, and are waited for: they are held by %s", who)

    def _are_there(self, holders: list[_Holder]) -> bool:
        pids, since = [holder.pid for holder in holders], [holder.since for holder in holders]
        try:
            return bool(self._ask(_STILL_THERE, (pids, since))[0][0])
        except psycopg2.Error as error:
            raise DatabaseUnavailable(str(error)) from None

    def _ask(self, query: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchall()
