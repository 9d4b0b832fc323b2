"""Tells a PostgreSQL that has refused us for good from one that is not up yet.

psycopg2 has no SQLSTATE for a failed connection, and the server's words are in its own language. So this module
connects once more and tells libpq to write the SQLSTATE (`PQsetErrorVerbosity`) instead of the words.
"""

import contextlib
import ctypes
import re
import select
import time

import psycopg2
import psycopg2._psycopg
import psycopg2.extensions

_REFUSALS = {
    "28P01",  # wrong password, or no such role on a server that asks for passwords
    "28000",  # no such role, not allowed to log in, no line in pg_hba.conf
    "3D000",  # no such database
    "42501",  # no CONNECT on the database
}

_POOLERS_REFUSAL = "08P01"
"""PgBouncer's code for every error; its words then decide. If it passes on words from a server in another language,
they are not recognised, and we wait.
"""

_POOLERS_WORDS = re.compile(
    r"(password|SASL|auth\w*) (authentication )?failed|no such (database|user)|(database|role) .* does not exist"
    r"|permission denied for database|no pg_hba\.conf entry|login rejected"
)

_OUR_SIDE = re.compile(
    r"no password supplied|root certificate file .* does not exist|certificate verify failed"
    r"|server certificate for .* does not match host name|server does not support SSL"
)
"""Errors of libpq itself, always in English: the libpq in psycopg2's wheel has no other language."""

_SQLSTATE = re.compile(r":  ([0-9A-Z]{5})\b")
_ONLY_SQLSTATE = 3  # PQERRORS_SQLSTATE
_LOOK_S = 5.0
"""Timeout for the second connection: as long as any connection may take (`connect_timeout`)."""


def refusal(dsn: str, said: str) -> str | None:
    """A sentence if the server or pooler that said `said` is up and refuses us, or None: wait for it."""
    said = " ".join(said.split())
    advice = "Check the user, the password and the database's name in DATABASE_URL (or the DB_… settings)"
    if _OUR_SIDE.search(said):
        return f"The database can't be used as it is set: {said}. {advice}, sslmode and sslrootcert."
    return f"The database refuses this service: {said}. {advice}." if _is_refused(dsn, said) else None


def _is_refused(dsn: str, said: str) -> bool:
    if "timeout expired" in said:  # the second connection would take as long
        return False
    code = _sqlstate(dsn)
    return code in _REFUSALS or (code in (_POOLERS_REFUSAL, None) and _POOLERS_WORDS.search(said) is not None)


def _sqlstate(dsn: str) -> str | None:
    """The SQLSTATE with which a new connection ends, "00000" if it succeeds, or None if there is none or
    it is unknown.
    """
    try:
        with contextlib.closing(psycopg2.connect(dsn, async_=True)) as connection:
            return "00000" if _write_sqlstates(connection) and _is_made(connection) else None
    except psycopg2.Error as error:
        found = _SQLSTATE.findall(str(error))
        return found[-1] if found else None  # with several hosts, libpq stops asking after a refused password


def _write_sqlstates(connection: psycopg2.extensions.connection) -> bool:
    """Tell libpq to write codes instead of words, through the pointer that psycopg2 gives for this."""
    try:
        tell = ctypes.CDLL(psycopg2._psycopg.__file__).PQsetErrorVerbosity
    except (OSError, AttributeError):  # this psycopg2's libpq can't be reached from outside
        return False
    tell.argtypes = [ctypes.c_void_p, ctypes.c_int]
    tell(connection.pgconn_ptr, _ONLY_SQLSTATE)
    return True


def _is_made(connection: psycopg2.extensions.connection) -> bool:
    give_up_at = time.monotonic() + _LOOK_S
    while (wants := connection.poll()) != psycopg2.extensions.POLL_OK and time.monotonic() < give_up_at:
        readable = wants == psycopg2.extensions.POLL_READ
        select.select([connection] if readable else [], [] if readable else [connection], [], 0.1)
    return bool(wants == psycopg2.extensions.POLL_OK)
