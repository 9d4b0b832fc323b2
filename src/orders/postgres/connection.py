"""A database thread's connection, which other threads can cut, and the query that runs on it."""

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
    """A thread's connection, with a second handle of its socket. Other threads can cut the connection by
    that handle.
    """

    def __init__(self, connection: Connection, opened_at: float) -> None:
        """`opened_at`: a moment before connecting began (`time.monotonic()`)."""
        self.opened_at = opened_at
        self.connection = connection
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))

    def is_well(self) -> bool:
        """Whether the server left the connection open while it was idle. This is checked before anything is sent, so
        nothing is lost.
        """
        if self.connection.closed:
            return False
        idle = select.poll()
        idle.register(self._socket, select.POLLIN)
        return not idle.poll(0)

    def cut(self) -> None:
        """Cut the connection. The thread that waits for an answer gets an error, even if the server has
        fallen silent.
        """
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it. Safe to repeat."""
        self.connection.close()
        self._socket.close()


class Job(Generic[T]):
    """A query, the future for its result, and the line on which it runs."""

    def __init__(self, query: Query[T]) -> None:
        self.future: Future[T] = Future()
        self._query = query
        self._line: Line | None = None
        self._is_given_up = False
        self._lock = threading.Lock()
        self.began_at: float | None = None

    def run(self, line: Line) -> T:
        """The query's result. After a deadlock the query runs once more, because PostgreSQL has undone it."""
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
        """Note that a thread starts with it. Returns False if nobody waits any more."""
        self.began_at = time.monotonic()
        return self.future.set_running_or_notify_cancel()

    def give_up(self) -> bool:
        """Prevent the start. If the query is running, cut its line and return True."""
        with self._lock:
            self._is_given_up = True
            if self._line:
                self._line.cut()
            return self._line is not None
