"""A database thread's connection, which other threads can cut, and the query that is at work on it."""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

import psycopg2.extensions

from orders.postgres.unavailable import DatabaseUnavailable

T = TypeVar("T")
Connection = psycopg2.extensions.connection
Query = Callable[[Connection], T]


class Line:
    """A thread's connection, with a second handle of its socket by which other threads can cut it."""

    def __init__(self, connection: Connection, opened_at: float) -> None:
        """`opened_at`: a moment before the connection was begun (`time.monotonic()`)."""
        self.opened_at = opened_at
        self.connection = connection
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))

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


class Job(Generic[T]):
    """A query, the future that is its result, and the line that is at work on it."""

    def __init__(self, query: Query[T]) -> None:
        self.future: Future[T] = Future()
        self._query = query
        self._line: Line | None = None
        self._is_given_up = False
        self._lock = threading.Lock()
        self.began_at: float | None = None

    def run(self, line: Line) -> T:
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

    def begin(self) -> bool:
        """A thread has come to it; False: nobody waits any more."""
        self.began_at = time.monotonic()
        return self.future.set_running_or_notify_cancel()

    def give_up(self) -> bool:
        """Don't begin. If it is running, cut the line, and return True."""
        with self._lock:
            self._is_given_up = True
            if self._line:
                self._line.cut()
            return self._line is not None
