"""Connections to PostgreSQL: reads a DSN, makes one connection, and waits for a server that is not up yet."""

import logging
import time

import psycopg2
import psycopg2.extensions

from orders.postgres.refusal import refusal
from orders.postgres.unavailable import DatabaseUnavailable, unreachable
from orders.settings import SettingsError

log = logging.getLogger(__name__)

Connection = psycopg2.extensions.connection

_RDS_HOST = ".rds.amazonaws.com"

_CONNECTION_DEFAULTS = {
    "application_name": "orders",
    "connect_timeout": "5",
    # Notices a peer that vanished (a failover, a dropped NAT entry) in half a minute, not in two hours.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

_MISREAD = (
    ('missing "="', "something in it is no key=value pair, and it does not begin with postgresql:// either"),
    ("percent-encoded", "a % begins no escape; in a password write %25"),
    ("key/value separator", "what follows its ? is not key=value; in a password write %3F for ? and %26 for &"),
    ("URI query parameter", "what follows its ? has a key that libpq does not know; in a password write %3F for ?"),
    ("connection option", "it has a key that libpq does not know"),
    ("unterminated quoted string", "a quote (') is not closed; in a value write \\'"),
)
"""Messages of libpq for a DSN that it can't read, and ours. Those of libpq go on to quote the DSN with its password."""


class SchemaError(Exception):
    """The database's tables are not what this version needs. The message says what to do."""


def with_defaults(dsn: str) -> str:
    """`dsn` with our defaults for options that it does not set. For Amazon RDS these include `sslmode=verify-full`.

    Raises SettingsError if libpq can't read it.
    """
    given = _parse(dsn)
    defaults = dict(_CONNECTION_DEFAULTS)
    if _RDS_HOST in given.get("host", ""):
        defaults["sslmode"] = "verify-full"
    return psycopg2.extensions.make_dsn(dsn, **{k: v for k, v in defaults.items() if k not in given})


def _parse(dsn: str) -> dict[str, str]:
    try:
        given = psycopg2.extensions.parse_dsn(dsn)
    except (psycopg2.Error, ValueError) as error:
        said = str(error)
        why = next((ours for theirs, ours in _MISREAD if theirs in said), "libpq can't read it")
        raise SettingsError(f"DATABASE_URL: {why}.") from None
    # libpq checks ports only when it connects, and would quote them.
    if not all(port.isdecimal() for port in given.get("port", "").split(",") if port):
        raise SettingsError("DATABASE_URL: its port is not a number; in a password write %2F for / and %3F for ?.")
    if "@" in given.get("host", ""):
        raise SettingsError("DATABASE_URL: its host has an @; in a password write %40 for @.")
    return given


def dsn_from_parts(name: str, user: str | None, password: str | None, host: str | None, port: int | None) -> str:
    """The DSN of the five DB_… settings. Raises SettingsError."""
    parts = {"dbname": name, "user": user, "password": password, "host": host, "port": port}
    try:
        return psycopg2.extensions.make_dsn(**{key: str(value) for key, value in parts.items() if value is not None})
    except (psycopg2.Error, ValueError):  # their messages would quote the password
        raise SettingsError("The DB_… settings: one has a character that is no text.") from None


def connect(dsn: str) -> Connection:
    """A new connection in autocommit: a string of several statements is one transaction and one round trip.

    PostgreSQL runs the statements of one simple query as one implicit transaction, also through a pooler in transaction
    mode. Raises DatabaseUnavailable.
    """
    try:
        connection = psycopg2.connect(dsn)
    except psycopg2.OperationalError as error:
        raise unreachable(error) from None
    connection.autocommit = True
    return connection


def wait_until_up(dsn: str, patience_s: float = float("inf")) -> None:
    """Wait until the database answers. Log every few seconds that it does not.

    Raises DatabaseUnavailable after `patience_s`, and SettingsError if a server is there and refuses us.
    """
    complete = with_defaults(dsn)
    give_up_at = time.monotonic() + patience_s
    pause_s = 0.1
    while True:
        try:
            connect(complete).close()
        except DatabaseUnavailable as error:
            if refused := refusal(complete, str(error)):
                raise SettingsError(refused) from None
            if time.monotonic() + pause_s > give_up_at:
                raise
            log.warning("waiting for the database: %s", error)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 3.0)
        else:
            return
