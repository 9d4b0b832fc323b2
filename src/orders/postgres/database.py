"""PostgreSQL for the event loop: worker threads that own a connection each, and the schema's migrations.

It knows no table of ours.
"""

import asyncio
import contextlib
import itertools
import math
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, TypeAlias, TypeVar

import psycopg2
import psycopg2.extensions

from orders.postgres.connecting import Connection, SchemaError, connect, wait_until_up, with_defaults
from orders.postgres.connection import Job, Line, Query
from orders.postgres.lanes import WRITING, Lane, share_threads
from orders.postgres.unavailable import DatabaseBusy, DatabaseFull, DatabaseUnavailable, explained, is_about_connection
from orders.postgres.upgrading import MIGRATIONS, VERSION_TABLE, upgrade

__all__ = ["Connection", "DatabaseUnavailable", "Query", "SchemaError", "connect", "wait_until_up", "with_defaults"]
# Types that callers import from here, although their home is elsewhere: most callers need them beside Database.

T = TypeVar("T")
Cursor = psycopg2.extensions.cursor
_Jobs: TypeAlias = "queue.SimpleQueue[Job[Any] | None]"

PATIENCE_S = 10.0
"""Timeout for a statement. After it the connection is cut; the statement may still take effect, then or later."""

RECONNECT_AFTER_S = 0.25

FULL_FOR_S = 15.0
"""How long `/health` reports a full database after one statement failed for that reason. It is longer than the pause
between two probes, and than that between two rounds of recovery.
"""


@contextlib.contextmanager
def opened(dsn: str) -> Iterator[Connection]:
    """A temporary connection with our defaults. Raises DatabaseUnavailable, also if the connection breaks meanwhile."""
    connection = connect(with_defaults(dsn))
    try:
        yield connection
    except psycopg2.Error as error:
        found = explained(error, is_broken=is_about_connection(error, connection))
        if found is error:
            raise
        raise found from None
    finally:
        connection.close()


@contextlib.contextmanager
def transaction(connection: Connection) -> Iterator[Cursor]:
    """A transaction of several round trips, with our own code in between. Nothing in it may wait for anyone else.

    If a replica is stopped inside it, PostgreSQL ends the transaction and its locks after 5 s.
    """
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '5s'")
        try:
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            if not connection.closed:
                cursor.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def undone(connection: Connection) -> Iterator[Cursor]:
    """A transaction that is always rolled back: its writes can be read inside it, and nothing is kept."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '5s'")
        try:
            yield cursor
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK")


class Database:
    """Threads with a connection each, in lanes. `run` is for the event loop, `run_sync` for the command line.

    A thread connects when it gets its first job.
    """

    def __init__(self, dsn: str, threads: int) -> None:
        self.dsn = with_defaults(dsn)
        self.changed = asyncio.Event()
        """Set after each piece of work in a lane whose work changes orders."""
        self._broken_at = 0.0
        self._full_at = -math.inf
        self._down_until = 0.0
        self._why_down: DatabaseUnavailable | None = None
        self._connecting = threading.Lock()
        shares = share_threads(threads)
        self._queues: dict[Lane, _Jobs] = {lane: queue.SimpleQueue() for lane in shares}
        self._threads = {
            lane: [
                threading.Thread(target=self._work, args=[self._queues[lane]], name=f"{lane}-{n}", daemon=True)
                for n in range(count)
            ]
            for lane, count in shares.items()
        }
        for thread in itertools.chain(*self._threads.values()):
            thread.start()

    async def run(self, query: Query[T], lane: Lane = Lane.PLACING) -> T:
        """The result of `query(connection)` on a thread of the lane. Raises DatabaseUnavailable, or what `query`
        raises.
        """
        job = self._submit(query, lane)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await asyncio.wrap_future(job.future)
        except TimeoutError:
            raise self._give_up(job) from None
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up, job)
            raise
        finally:
            if lane in WRITING:
                self.changed.set()

    def run_sync(self, query: Query[T]) -> T:
        """Like `run`, for callers without an event loop."""
        job = self._submit(query, Lane.PLACING)
        try:
            return job.future.result(PATIENCE_S)
        except TimeoutError:
            raise self._give_up(job) from None

    def threads_of(self, lane: Lane) -> int:
        """Number of threads that work for this lane."""
        return len(self._threads.get(lane) or self._threads[Lane.PLACING])

    async def require_health(self) -> None:
        """Raise DatabaseUnavailable if the database does not answer, or was full a short while ago.

        SELECT 1 alone would not tell: a full disk can still be read.
        """
        await self.run(_ask, Lane.HEALTH)
        if time.monotonic() < self._full_at + FULL_FOR_S:
            raise DatabaseFull(f"it had no room left {time.monotonic() - self._full_at:.0f} s ago")

    def close(self) -> None:
        """Let the threads finish their jobs, and close their connections."""
        for lane, threads in self._threads.items():
            for _ in threads:
                self._queues[lane].put(None)
        for thread in itertools.chain(*self._threads.values()):
            thread.join(timeout=5)

    def _submit(self, query: Query[T], lane: Lane) -> Job[T]:
        job = Job(query)
        self._queues.get(lane, self._queues[Lane.PLACING]).put(job)
        return job

    def _give_up(self, job: Job[Any]) -> DatabaseUnavailable:
        if job.give_up():
            self._broken_at = time.monotonic()
        if job.began_at is None:
            return DatabaseBusy(f"no thread was free within {PATIENCE_S:.0f} s")
        return DatabaseUnavailable(f"no answer within {PATIENCE_S:.0f} s")

    def _work(self, jobs: _Jobs) -> None:
        line: Line | None = None
        while (job := jobs.get()) is not None:
            if not job.begin():
                continue
            try:
                line = self._line_that_works(line)
                job.future.set_result(job.run(line))
            except BaseException as error:
                job.future.set_exception(self._understood(error, line))
        if line:
            line.close()

    def _understood(self, error: BaseException, line: Line | None) -> BaseException:
        """The error that the caller gets. After a broken connection all others are replaced before their next use."""
        if isinstance(error, psycopg2.Error):
            is_broken = is_about_connection(error, line.connection if line else None)
            if is_broken:
                self._broken_at = time.monotonic()
            error = explained(error, is_broken=is_broken)
        if isinstance(error, DatabaseFull):
            self._full_at = time.monotonic()
        return error

    def _line_that_works(self, line: Line | None) -> Line:
        """This line, or a new one. When a line breaks, all lines opened before are replaced, because a dead one looks
        idle.
        """
        if line and line.opened_at > self._broken_at and line.is_well():
            return line
        if line:
            line.close()
        return self._connect()

    def _connect(self) -> Line:
        """A new line.

        After a failure, only one thread tries again, after a pause. Meanwhile the others fail at once.
        """
        with self._connecting:
            if time.monotonic() < self._down_until:
                assert self._why_down
                raise type(self._why_down)(str(self._why_down))
            if self._why_down:
                self._down_until = math.inf
        try:
            began_at = time.monotonic()
            line = Line(connect(self.dsn), began_at)
        except Exception as error:
            why = error if isinstance(error, DatabaseUnavailable) else DatabaseUnavailable(str(error))
            self._down_until, self._why_down = time.monotonic() + RECONNECT_AFTER_S, why
            raise
        self._down_until, self._why_down = 0.0, None
        return line


def _ask(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def schema_version(connection: Connection) -> str | None:
    """The newest applied migration, or None on a database without our tables."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (VERSION_TABLE,))
        if not _one(cursor):
            return None
        cursor.execute(f"SELECT max(version_num) FROM {VERSION_TABLE}")  # noqa: S608 (a constant)
        version = _one(cursor)
        return None if version is None else str(version)


def newest_version() -> str:
    """The newest migration of this version of the service."""
    return max(path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _one(cursor: Any) -> Any:
    row = cursor.fetchone()
    return row[0] if row else None


def migrate(dsn: str) -> str | None:
    """Make or upgrade the tables. Safe from several replicas at once. Returns the version before.

    A database that a newer version has upgraded stays as it is: migrations keep a running older replica working.
    """
    before = _version_at(dsn)
    if before is None or before < newest_version():
        upgrade(with_defaults(dsn))
    return before


def require_schema(dsn: str) -> None:
    """Raise SchemaError unless the tables are up to date. For services that run without migration at start-up."""
    version = _version_at(dsn)
    if version is None or version < newest_version():
        raise SchemaError(
            f"The database's tables are at version {version or 'none'}, this service needs {newest_version()}, and "
            "ORDERS_MIGRATE_AT_START is off. Run `orders migrate`."
        )


def _version_at(dsn: str) -> str | None:
    with opened(dsn) as connection:
        return schema_version(connection)
