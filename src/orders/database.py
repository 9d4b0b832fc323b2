"""PostgreSQL: worker threads that own a connection each, and the schema's migrations. Knows no table of ours."""

import asyncio
import contextlib
import math
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from orders.connecting import Connection, DatabaseUnavailable, SchemaError, connect, wait_until_up, with_defaults
from orders.upgrading import MIGRATIONS, VERSION_TABLE, upgrade

__all__ = ["Connection", "DatabaseUnavailable", "SchemaError", "connect", "wait_until_up", "with_defaults"]
# What callers get here although it is at home in `connecting`: most need it beside Database.

T = TypeVar("T")
Cursor = psycopg2.extensions.cursor
Query = Callable[[Connection], T]

PATIENCE_S = 10.0
"""So long is a statement waited for; then its connection is cut. It may still have happened, or happen later."""

RECONNECT_AFTER_S = 0.25

# Read-only: after a failover we still hold a connection to the server that is a standby now.
_BROKEN = (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.errors.ReadOnlySqlTransaction)


@contextlib.contextmanager
def opened(dsn: str) -> Iterator[Connection]:
    """A connection for a while, with our defaults. Raises DatabaseUnavailable, also where it breaks meanwhile."""
    connection = connect(with_defaults(dsn))
    try:
        yield connection
    except psycopg2.Error as error:
        if not _is_broken(error, connection):
            raise
        raise DatabaseUnavailable(str(error)) from None
    finally:
        connection.close()


class _Line:
    """A thread's connection, with a second handle of its socket by which other threads can cut it."""

    def __init__(self, dsn: str) -> None:
        self.opened_at = time.monotonic()
        self.connection = connect(dsn)
        self._socket = socket.socket(fileno=os.dup(self.connection.fileno()))

    def is_well(self) -> bool:
        """Whether the server has not closed it while it was idle: seen before anything is sent, so nothing is lost."""
        if self.connection.closed:
            return False
        idle = select.poll()
        idle.register(self._socket, select.POLLIN)
        return not idle.poll(0)

    def cut(self) -> None:
        """The thread that waits for an answer gets an error instead, also where the server has fallen silent."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it. Safe to repeat."""
        self.connection.close()
        self._socket.close()


class _Job(Generic[T]):
    """A query, the future that is its result, and the line that is at work on it."""

    def __init__(self, query: Query[T]) -> None:
        self.future: Future[T] = Future()
        self._query = query
        self._line: _Line | None = None
        self._is_given_up = False
        self._lock = threading.Lock()

    def run(self, line: _Line) -> T:
        """The query's result; once more where PostgreSQL ended it for a deadlock: it has changed nothing then."""
        with self._lock:
            if self._is_given_up:
                raise DatabaseUnavailable("nobody waits any more")
            self._line = line
        try:
            return self._query(line.connection)
        except psycopg2.extensions.TransactionRollbackError:
            return self._query(line.connection)
        finally:
            with self._lock:
                self._line = None

    def give_up(self) -> bool:
        """Don't begin. If it is running, cut the line, and return True."""
        with self._lock:
            self._is_given_up = True
            if self._line:
                self._line.cut()
            return self._line is not None


@contextlib.contextmanager
def transaction(connection: Connection) -> Iterator[Cursor]:
    """One transaction of several round trips, with our own code in between; nothing in it may wait for anyone else.

    A replica that is stopped in the middle of it loses its locks after a while.
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
    """A transaction that is always rolled back: what would be written can be read in it, and nothing is."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '5s'")
        try:
            yield cursor
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK")


class Database:
    """Threads with a connection each. `run` is for the event loop, `run_sync` for the command line."""

    def __init__(self, dsn: str, threads: int) -> None:
        self.dsn = with_defaults(dsn)
        self._broken_at = 0.0
        self._down_until = 0.0
        self._why_down = ""
        self._connecting = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"database-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    async def run(self, query: Query[T]) -> T:
        """`query(connection)` on a thread. Raises DatabaseUnavailable, or what `query` raises."""
        job = self._submit(query)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await asyncio.wrap_future(job.future)
        except TimeoutError:
            raise self._give_up(job) from None
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up, job)
            raise

    def run_sync(self, query: Query[T]) -> T:
        """`run` for callers without an event loop."""
        job = self._submit(query)
        try:
            return job.future.result(PATIENCE_S)
        except TimeoutError:
            raise self._give_up(job) from None

    def close(self) -> None:
        """Let the threads finish what they were given, and close their connections."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    def _submit(self, query: Query[T]) -> _Job[T]:
        job = _Job(query)
        self._jobs.put(job)
        return job

    def _give_up(self, job: _Job[Any]) -> DatabaseUnavailable:
        if job.give_up():
            self._broken_at = time.monotonic()
        return DatabaseUnavailable(f"no answer within {PATIENCE_S:.0f} s")

    def _work(self) -> None:
        line: _Line | None = None
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                line = self._line_that_works(line)
                job.future.set_result(job.run(line))
            except psycopg2.Error as error:
                if not _is_broken(error, line.connection if line else None):
                    job.future.set_exception(error)
                    continue
                self._broken_at = time.monotonic()
                job.future.set_exception(DatabaseUnavailable(str(error).strip()))
            except BaseException as error:
                job.future.set_exception(error)
        if line:
            line.close()

    def _line_that_works(self, line: _Line | None) -> _Line:
        """This line, or a new one. Where one broke, all that were open then are replaced: a dead one looks idle."""
        if line and line.opened_at > self._broken_at and line.is_well():
            return line
        if line:
            line.close()
        return self._connect()

    def _connect(self) -> _Line:
        """A new line. After a failure one thread tries again, after a while; meanwhile callers are answered at once."""
        with self._connecting:
            if time.monotonic() < self._down_until:
                raise DatabaseUnavailable(self._why_down)
            if self._why_down:
                self._down_until = math.inf
        try:
            line = _Line(self.dsn)
        except Exception as error:
            self._down_until, self._why_down = time.monotonic() + RECONNECT_AFTER_S, str(error)
            raise
        self._down_until, self._why_down = 0.0, ""
        return line


def _is_broken(error: psycopg2.Error, connection: Connection | None) -> bool:
    """Whether this is about the connection, not the statement. A server that dies is now and then a DatabaseError."""
    is_ours = isinstance(error, _BROKEN) or type(error) is psycopg2.DatabaseError
    return is_ours or connection is None or connection.closed > 0


def schema_version(connection: Connection) -> str | None:
    """The newest migration that was applied, or None on a database without our tables."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (VERSION_TABLE,))
        if not _one(cursor):
            return None
        cursor.execute(f"SELECT max(version_num) FROM {VERSION_TABLE}")  # noqa: S608 (a constant)
        version = _one(cursor)
        return None if version is None else str(version)


def newest_version() -> str:
    """The newest migration that this version of the service brings."""
    return max(path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _one(cursor: Any) -> Any:
    row = cursor.fetchone()
    return row[0] if row else None


def migrate(dsn: str) -> str | None:
    """Make or upgrade the tables; safe from several replicas at once. Returns the version before.

    A database that a newer version has upgraded is left as it is: migrations keep a running older replica working.
    """
    before = _version_at(dsn)
    if before is None or before < newest_version():
        upgrade(with_defaults(dsn))
    return before


def require_schema(dsn: str) -> None:
    """Raise SchemaError unless the tables are there (for who turned migration at start-up off)."""
    version = _version_at(dsn)
    if version is None or version < newest_version():
        raise SchemaError(
            f"The database's tables are at version {version or 'none'}, this service needs {newest_version()}, and "
            "ORDERS_MIGRATE_AT_START is off. Run `orders migrate`."
        )


def _version_at(dsn: str) -> str | None:
    with opened(dsn) as connection:
        return schema_version(connection)
