"""Errors of a database that can't do what was asked: it is unreachable, busy, or full."""

import errno
import os

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from orders.errors import Code, OrderError

# ReadOnlySqlTransaction: after a failover our connection may lead to the server that is now a standby.
BROKEN = (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.errors.ReadOnlySqlTransaction)

_NO_ROOM = ("53100", "53200")
"""SQLSTATEs of a full disk, and of a server without memory.

Too many connections (53300) is not here: the refusal comes before there is a connection, and libpq hides that SQLSTATE.
Its sentence is in the log, and the database counts as unreachable.
"""

_NO_SPACE = os.strerror(errno.ENOSPC)

_OF_THE_CONNECTION = ("08", "57P")
"""SQLSTATE classes that end a connection: connection exceptions, and a server that shuts down."""


class DatabaseUnavailable(Exception):
    """The database can't be reached, or the connection broke. The statement may or may not have taken effect."""

    code = Code.DATABASE_UNAVAILABLE
    told = "The database can't be reached."

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split()))  # libpq explains itself in several lines; a log has one

    def as_order_error(self) -> OrderError:
        """The error for the client. It leaves out the reason, which may name hosts and files."""
        return OrderError(self.code, self.told, retry_after_s=1)


class DatabaseBusy(DatabaseUnavailable):
    """No thread of the lane was free in time. Nothing has happened."""

    told = "The database has too much to do."


class DatabaseFull(DatabaseUnavailable):
    """The database's disk or memory is full. Nothing has happened."""

    code = Code.DATABASE_FULL
    told = "The database has no room left."


def is_about_connection(error: psycopg2.Error, connection: psycopg2.extensions.connection | None) -> bool:
    """Whether the connection is useless from now on.

    A full disk, a lock that was not free and a statement that took too long are OperationalErrors, too. But these are
    about the statement: replacing the connections would not help.
    """
    if connection is None or connection.closed:
        return True
    if isinstance(error, psycopg2.errors.ReadOnlySqlTransaction):
        return True
    if error.pgcode is not None:
        return error.pgcode.startswith(_OF_THE_CONNECTION)
    # Errors with libpq's own words. A dying server now and then causes a plain DatabaseError.
    return isinstance(error, BROKEN) or type(error) is psycopg2.DatabaseError


def unreachable(error: psycopg2.OperationalError) -> DatabaseUnavailable:
    """The error for a connection that could not be made. libpq gives no SQLSTATE then, only the server's words, in the
    system's language.
    """
    return (DatabaseFull if _NO_SPACE in str(error) else DatabaseUnavailable)(str(error))


def explained(error: psycopg2.Error, *, is_broken: bool) -> Exception:
    """The error for the caller: `error` itself if the caller can understand it."""
    if error.pgcode in _NO_ROOM:
        return DatabaseFull(str(error))
    if is_broken or isinstance(error, BROKEN):
        return DatabaseUnavailable(str(error))
    return error
