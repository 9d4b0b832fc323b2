"""The table `access_keys`. Keys are never deleted: a revoked one is kept for the audit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from orders.access.granting import Caller, Grant, sorted_scopes
from orders.access.keys import digest_of, id_of, make_key
from orders.errors import Code, OrderError
from orders.order.audit_sql import AuditEntry, add_audit
from orders.postgres.database import Connection, Cursor, transaction
from orders.postgres.rows import named_rows

MAX_LISTED = 1000
"""Maximum number of keys in the list. The newest are listed."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key as people see it. Its secret is not known any more."""

    id: str
    name: str
    scopes: list[str]
    channel: str | None
    rate: int | None
    expires_at: datetime | None
    replaced_by: str | None
    revoked_at: datetime | None
    used_at: datetime | None
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class UsableKey:
    """A key that is neither revoked nor expired. `expires_in_s` is by the database's clock; None: never."""

    id: str
    family: str
    name: str
    digest: bytes
    scopes: list[str]
    channel: str | None
    rate: int | None
    expires_in_s: float | None


_COLUMNS = ", ".join(field.name for field in fields(AccessKey))


def any_exist(connection: Connection) -> bool:
    """Whether a key was ever made. Revoked and expired ones count."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM access_keys)")
        row = cursor.fetchone()
        return bool(row and row[0])


def find_usable(connection: Connection, ids: Sequence[str]) -> list[UsableKey]:
    """The keys with these IDs that can be used now."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT id, family, name, digest, scopes, channel, rate,
                      extract(epoch FROM expires_at - clock_timestamp())::float8 AS expires_in_s
               FROM access_keys
               WHERE id = ANY(%s) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())""",
            (list(ids),),
        )
        return [UsableKey(**{**row, "digest": bytes(row["digest"])}) for row in named_rows(cursor)]


def find_key(connection: Connection, key_id: str) -> AccessKey | None:
    """The key with this ID, whatever became of it, or None."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM access_keys WHERE id = %s", (key_id,))
        return next(_keys(cursor), None)


def list_keys(connection: Connection, channel: str | None) -> list[AccessKey]:
    """The newest keys, newest first. With `channel`: only those of that channel."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT {_COLUMNS} FROM access_keys WHERE %(channel)s::text IS NULL OR channel = %(channel)s
                ORDER BY created_at DESC, id LIMIT {MAX_LISTED}""",
            {"channel": channel},
        )
        return list(_keys(cursor))


def create_key(connection: Connection, grant: Grant, caller: Caller) -> tuple[str, AccessKey]:
    """Make a key. Returns it with its secret, which nobody can read later, and its row."""
    with transaction(connection) as cursor:
        text, key = _insert(cursor, grant, caller, None)
        _note(cursor, caller, "key_created", key.id, None, _told(key))
        return text, key


def rotate_key(
    connection: Connection, key_id: str, keep_old_for: timedelta, caller: Caller
) -> tuple[str, AccessKey] | None:
    """Make a key that may do the same, for as long again. The old one expires after `keep_old_for`, if not before.

    Returns None if there is no such key. Raises OrderError if it was revoked, has expired, or was replaced.
    """
    with transaction(connection) as cursor:
        cursor.execute(_LOCK, (key_id,))
        old = next(named_rows(cursor), None)
        if old is None:
            return None
        _refuse_ended(old)
        grant = Grant(old["name"], frozenset(old["scopes"]), old["channel"], old["rate"], old["next_expires_at"])
        text, new = _insert(cursor, grant, caller, old["family"])
        cursor.execute(_REPLACE, {"id": key_id, "by": new.id, "keep": keep_old_for})
        ended = next(named_rows(cursor))
        before = {"expires_at": old["expires_at"], "replaced_by": None}
        _note(cursor, caller, "key_rotated", key_id, before, {**ended, "replaced_by": new.id})
        return text, new


def revoke_key(connection: Connection, key_id: str, caller: Caller) -> bool:
    """End a key at once. Safe to repeat. Returns False if there is no such key."""
    with transaction(connection) as cursor:
        cursor.execute(
            """UPDATE access_keys SET revoked_at = clock_timestamp() WHERE id = %s AND revoked_at IS NULL
               RETURNING revoked_at""",
            (key_id,),
        )
        if revoked := next(named_rows(cursor), None):
            _note(cursor, caller, "key_revoked", key_id, {"revoked_at": None}, revoked)
            return True
        cursor.execute("SELECT FROM access_keys WHERE id = %s", (key_id,))
        return cursor.rowcount > 0


def touch_used(connection: Connection, ids: Sequence[str]) -> None:
    """Note that these keys were just used. A key whose note is younger than a minute keeps it.

    A row that is locked is left out: another replica writes the same there.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE access_keys SET used_at = now() WHERE id IN (
                   SELECT id FROM access_keys
                   WHERE id = ANY(%s) AND (used_at IS NULL OR used_at <= now() - interval '1 minute')
                   FOR NO KEY UPDATE SKIP LOCKED)""",
            (list(ids),),
        )


_LOCK = """
    SELECT family, name, scopes, channel, rate, expires_at, revoked_at, replaced_by,
        coalesce(expires_at <= clock_timestamp(), false) AS is_over,
        now() + (expires_at - created_at) AS next_expires_at
    FROM access_keys WHERE id = %s FOR UPDATE
"""

_REPLACE = """
    UPDATE access_keys SET replaced_by = %(by)s, expires_at = least(expires_at, clock_timestamp() + %(keep)s)
    WHERE id = %(id)s RETURNING expires_at
"""


def _insert(cursor: Cursor, grant: Grant, caller: Caller, family: str | None) -> tuple[str, AccessKey]:
    """Insert a new key. `family`: that of the key that it replaces; without it, it is the first of its own."""
    text = make_key()
    cursor.execute(
        f"""INSERT INTO access_keys (id, family, name, digest, scopes, channel, rate, expires_at, created_by)
            VALUES (%(id)s, %(family)s, %(name)s, %(digest)s, %(scopes)s, %(channel)s, %(rate)s, %(expires_at)s, %(by)s)
            RETURNING {_COLUMNS}""",
        {
            "id": id_of(text),
            "family": family or id_of(text),
            "name": grant.name,
            "digest": digest_of(text),
            "scopes": sorted_scopes(grant.scopes),
            "channel": grant.channel,
            "rate": grant.rate,
            "expires_at": grant.expires_at,
            "by": caller.actor,
        },
    )
    return text, next(_keys(cursor))


def _refuse_ended(old: Mapping[str, Any]) -> None:
    if old["replaced_by"] is not None:
        detail = f"It was replaced by the key {old['replaced_by']} already; rotate that one."
        raise OrderError(Code.KEY_ENDED, detail, extra={"replaced_by": old["replaced_by"]})
    if old["revoked_at"] is not None or old["is_over"]:
        how = "was revoked" if old["revoked_at"] is not None else "has expired"
        raise OrderError(Code.KEY_ENDED, f"It {how}; make a new key.")


def _keys(cursor: Cursor) -> Iterator[AccessKey]:
    for row in named_rows(cursor):
        times = {name: value.astimezone(UTC) for name, value in row.items() if isinstance(value, datetime)}
        yield AccessKey(**{**row, **times})


def _told(key: AccessKey) -> dict[str, Any]:
    """What the audit says of a new key."""
    return {name: getattr(key, name) for name in ("name", "scopes", "channel", "rate", "expires_at")}


def _note(
    cursor: Cursor,
    caller: Caller,
    action: str,
    key_id: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any],
) -> None:
    entry = AuditEntry(caller.actor, action, key_id, _plain(before), _plain(after), caller.address, caller.request_id)
    add_audit(cursor, entry)


def _plain(members: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The members with times as JSON has them."""
    if members is None:
        return None
    return {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in members.items()
    }
