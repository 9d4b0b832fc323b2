"""What is said of a database that can't do what was asked: it can't be reached, is busy, or has no room left."""

import errno
import os

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from orders.errors import Code, OrderError

# Read-only: after a failover we still hold a connection to the server that is a standby now.
BROKEN = (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.errors.ReadOnlySqlTransaction)

_NO_ROOM = ("53100", "53200")
"""SQLSTATE of a full disk, and of a server without memory. Too many connections (53300) are refused before there is
one, and libpq hides that SQLSTATE: its sentence is in the log, the database can't be reached.
"""

_NO_SPACE = os.strerror(errno.ENOSPC)

_OF_THE_CONNECTION = ("08", "57P")
"""SQLSTATE classes that end a connection: connection exceptions, and a server that shuts down."""


class DatabaseUnavailable(Exception):
    """The database can't be reached, or the connection broke: what was asked may or may not have happened."""

    code = Code.DATABASE_UNAVAILABLE
    told = "The database can't be reached."

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split()))  # libpq explains itself in several lines; a log has one

    def as_order_error(self) -> OrderError:
        """What the client is told. It is not told the reason, which may name hosts and files."""
        return OrderError(self.code, self.told, retry_after_s=1)


class DatabaseBusy(DatabaseUnavailable):
    """No thread of the lane was free in time: nothing of what was asked has happened."""

    told = "The database has too much to do."


class DatabaseFull(DatabaseUnavailable):
    """The database's disk (or its memory) is full: nothing of what was asked has happened."""

    code = Code.DATABASE_FULL
    told = "The database has no room left."


def is_about_connection(error: psycopg2.Error, connection: psycopg2.extensions.connection | None) -> bool:
    """Whether the connection is of no use any more. A full disk, a lock that was not to be had and a statement that
    took too long are OperationalErrors too, but of the statement: to replace every connection would mend nothing.
    """
    if connection is None or connection.closed:
        return True
    if isinstance(error, psycopg2.errors.ReadOnlySqlTransaction):
        return True
    if error.pgcode is not None:
        return error.pgcode.startswith(_OF_THE_CONNECTION)
    # libpq's own words. A server that dies is now and then a plain DatabaseError.
    return isinstance(error, BROKEN) or type(error) is psycopg2.DatabaseError


def unreachable(error: psycopg2.OperationalError) -> DatabaseUnavailable:
    """Why no connection was made. libpq tells no SQLSTATE then, only what the server said, as the system words it."""
    return (DatabaseFull if _NO_SPACE in str(error) else DatabaseUnavailable)(str(error))


def explained(error: psycopg2.Error, *, is_broken: bool) -> Exception:
    """What the caller gets: the error itself where it is the caller's to understand."""
    if error.pgcode in _NO_ROOM:
        return DatabaseFull(str(error))
    if is_broken or isinstance(error, BROKEN):
        return DatabaseUnavailable(str(error))
    return error
