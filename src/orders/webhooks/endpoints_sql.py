"""Makes, changes and deletes endpoints, each in one transaction with its audit."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from orders.errors import Code, OrderError
from orders.order.audit_sql import AuditEntry, add_audit
from orders.order.keys_sql import KeyInUse, Outcome, find_key, keep_outcome
from orders.order.model import Author
from orders.postgres.database import Connection, Cursor, transaction
from orders.postgres.rows import named_rows
from orders.principal import Seer
from orders.webhooks.endpoint_views_sql import IN_CHANNEL, IN_ITS_OWN, EndpointView, no_webhook, read_endpoint
from orders.webhooks.model import DisabledReason, Ordering, Payload
from orders.webhooks.secrets_sql import keep_secret
from orders.webhooks.signing import Sealing, SigningKey, new_key

MAX_SECRETS = 3
"""Maximum number of secrets of one endpoint that sign at once: each makes every message longer."""

DELETED_AT_ONCE = 2_000
"""Maximum number of deliveries that are deleted in one go: short locks, and others get their turn."""

SKIPPED = "skipped"
"""What a delivery has as its error if its endpoint was enabled to go on from now."""


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An endpoint to make. `after`: the position in the feed behind which it begins; None: the last one."""

    url: str
    types: tuple[str, ...]
    payload: Payload = Payload.FULL
    ordering: Ordering = Ordering.ORDER
    concurrency: int = 8
    channel: str | None = None
    description: str | None = None
    after: int | None = None
    id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class Remembered:
    """The Idempotency-Key of a request, as it is stored, and the answer that it is to remember."""

    key: str
    fingerprint: bytes
    body: Callable[[EndpointView], str]


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What is to change. `values` are columns; `is_enabled` None: as it is. `from_now`: what it has not got is left
    out.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    is_enabled: bool | None = None
    from_now: bool = False


def add_endpoint(
    connection: Connection,
    new: NewEndpoint,
    secret: SigningKey,
    sealing: Sealing,
    most: int,
    author: Author,
    remembered: Remembered | None = None,
) -> EndpointView | KeyInUse:
    """Make an endpoint, or find that the request's key is known already. One runs at a time.

    Raises OrderError: there are `most` endpoints (409), or the feed does not reach to its position (409).
    """
    with transaction(connection) as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('add_webhook'))")
        if remembered and (known := find_key(connection, remembered.key)):
            return known
        _refuse_too_many(cursor, most)
        _insert(cursor, new, _start(cursor, new.after), author)
        keep_secret(cursor, new.id, secret, sealing)
        view = read_endpoint(cursor, new.id, Seer())
        note(cursor, author, "webhook_created", new.id, None, _told(view))
        if remembered:
            # Not 201: the table has that for placed orders.
            keep_outcome(
                connection, remembered.key, remembered.fingerprint, Outcome(200, remembered.body(view), order_id=None)
            )
        return view


def change_endpoint(
    connection: Connection,
    webhook_id: UUID,
    change: EndpointChange,
    versions: Container[int] | None,
    author: Author,
    seer: Seer,
) -> EndpointView:
    """Change an endpoint; its version grows, unless nothing changes. `versions`: those that the author knows.

    Raises OrderError: it is unknown (404), or has another version (412).
    """
    with transaction(connection) as cursor:
        before = lock(cursor, webhook_id, seer)
        if versions is not None and before["version"] not in versions:
            detail = f"The webhook has version {before['version']}, which is none of those that you named."
            raise OrderError(Code.VERSION_CHANGED, detail, extra={"version": before["version"]})
        values = {**change.values, **_switched(before, change.is_enabled)}
        if change.from_now:
            values["position"] = _skip(cursor, webhook_id)
        changed = {name: value for name, value in values.items() if before[name] != value}
        if changed:
            _update(cursor, webhook_id, changed)
            _go_on(cursor, webhook_id, changed)
            note(cursor, author, "webhook_changed", webhook_id, {n: before[n] for n in changed}, changed)
        return read_endpoint(cursor, webhook_id, seer)


def rotate_secret(
    connection: Connection, webhook_id: UUID, keep_old_for: timedelta, sealing: Sealing, author: Author, seer: Seer
) -> tuple[SigningKey, EndpointView]:
    """Give the endpoint a new secret of the same kind. The old one signs beside it for `keep_old_for`.

    Raises OrderError (404).
    """
    with transaction(connection) as cursor:
        lock(cursor, webhook_id, seer)
        before = read_endpoint(cursor, webhook_id, seer)
        secret = new_key(before.kind)
        keep_secret(cursor, webhook_id, secret, sealing, keep_old_for)
        cursor.execute(
            """DELETE FROM webhook_secrets WHERE webhook_id = %(id)s::uuid AND number <= (
                   SELECT max(number) FROM webhook_secrets WHERE webhook_id = %(id)s::uuid) - %(most)s""",
            {"id": str(webhook_id), "most": MAX_SECRETS},
        )
        _update(cursor, webhook_id, {})
        kept = {"keep_old_for_h": round(keep_old_for.total_seconds() / 3600)}
        note(cursor, author, "webhook_rotated", webhook_id, None, kept)
        return secret, read_endpoint(cursor, webhook_id, seer)


def delete_some_deliveries(connection: Connection, webhook_id: UUID, seer: Seer) -> bool:
    """Disable the endpoint, and delete some of its deliveries. Returns whether there may be more.

    Raises OrderError (404).
    """
    with transaction(connection) as cursor:
        lock(cursor, webhook_id, seer)
        cursor.execute(
            """UPDATE webhooks SET status = 'disabled', disabled_reason = 'asked' WHERE id = %s::uuid
               AND status = 'enabled'""",
            (str(webhook_id),),
        )
        cursor.execute(
            f"""DELETE FROM webhook_deliveries WHERE id IN (
                   SELECT d.id FROM webhook_deliveries d, webhooks w WHERE w.id = %s::uuid AND {IN_ITS_OWN}
                   ORDER BY d.webhook_id, d.id LIMIT %s)""",
            (str(webhook_id), DELETED_AT_ONCE),
        )
        return cursor.rowcount == DELETED_AT_ONCE


def delete_endpoint(connection: Connection, webhook_id: UUID, author: Author, seer: Seer) -> None:
    """Delete an endpoint with its secrets, and what is left of its deliveries. Raises OrderError (404)."""
    with transaction(connection) as cursor:
        lock(cursor, webhook_id, seer)
        told = _told(read_endpoint(cursor, webhook_id, seer))
        cursor.execute("DELETE FROM webhooks WHERE id = %s::uuid", (str(webhook_id),))
        note(cursor, author, "webhook_deleted", webhook_id, told, None)


def lock(cursor: Cursor, webhook_id: UUID, seer: Seer) -> dict[str, Any]:
    """The endpoint's row, locked as a tick locks it. Raises OrderError (404)."""
    cursor.execute(
        f"SELECT w.* FROM webhooks w WHERE w.id = %(id)s::uuid AND {IN_CHANNEL} FOR NO KEY UPDATE",
        {"id": str(webhook_id), "channel": seer.channel},
    )
    row = next(named_rows(cursor), None)
    if row is None:
        raise no_webhook(str(webhook_id))
    return row


def note(
    cursor: Cursor,
    author: Author,
    action: str,
    webhook_id: UUID,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> None:
    """Write the audit of a change. Commits nothing."""
    entry = AuditEntry(
        author.actor, action, str(webhook_id), _plain(before), _plain(after), author.address, author.request_id
    )
    add_audit(cursor, entry)


def _refuse_too_many(cursor: Cursor, most: int) -> None:
    cursor.execute("SELECT count(*) FROM webhooks")
    ((there_are,),) = cursor.fetchall()
    if there_are >= most:
        detail = f"There are {there_are} webhooks, and ORDERS_WEBHOOKS allows {most}. Delete one that nobody needs."
        raise OrderError(Code.TOO_MANY_WEBHOOKS, detail)


def _start(cursor: Cursor, after: int | None) -> int:
    """The position behind which an endpoint begins."""
    head = _head(cursor)
    if after is None:
        return head
    if after > head:
        detail = f"The feed ends at position {head}; there is no {after}."
        raise OrderError(Code.POSITION_AHEAD, detail, extra={"head": head})
    return after


def _head(cursor: Cursor) -> int:
    cursor.execute("SELECT coalesce(max(position), 0) FROM events")
    ((head,),) = cursor.fetchall()
    return int(head)


def _insert(cursor: Cursor, new: NewEndpoint, position: int, author: Author) -> None:
    cursor.execute(
        """INSERT INTO webhooks (id, url, description, types, channel, payload, ordering, concurrency, position,
                                 created_by)
           VALUES (%(id)s, %(url)s, %(description)s, %(types)s, %(channel)s, %(payload)s, %(ordering)s,
                   %(concurrency)s, %(position)s, %(by)s)""",
        {
            "id": str(new.id),
            "url": new.url,
            "description": new.description,
            "types": list(new.types),
            "channel": new.channel,
            "payload": str(new.payload),
            "ordering": str(new.ordering),
            "concurrency": new.concurrency,
            "position": position,
            "by": author.actor,
        },
    )


def _switched(before: Mapping[str, Any], is_enabled: bool | None) -> dict[str, Any]:
    """The columns that switching it on or off changes. Why it was disabled stays, if it is so already."""
    if is_enabled is None or is_enabled == (before["status"] == "enabled"):
        return {}
    if is_enabled:
        return {"status": "enabled", "disabled_reason": None}
    return {"status": "disabled", "disabled_reason": str(DisabledReason.ASKED)}


def _skip(cursor: Cursor, webhook_id: UUID) -> int:
    """Send nothing more of what the endpoint has not got. Returns the position from which it goes on."""
    cursor.execute(
        """UPDATE webhook_deliveries SET state = 'failed', last_error = %s
           WHERE webhook_id = %s::uuid AND state IN ('waiting', 'sending')""",
        (SKIPPED, str(webhook_id)),
    )
    return _head(cursor)


def _go_on(cursor: Cursor, webhook_id: UUID, changed: Mapping[str, Any]) -> None:
    """Begin at once, and with a clean slate, if the endpoint was just enabled or leads somewhere else."""
    if changed.get("status") != "enabled" and "url" not in changed:
        return
    cursor.execute(
        """UPDATE webhooks SET failed_in_row = 0, failing_since = NULL, told_until = NULL, slow_until = NULL
           WHERE id = %s::uuid""",
        (str(webhook_id),),
    )
    cursor.execute(
        "UPDATE webhook_deliveries SET due_at = now() WHERE webhook_id = %s::uuid AND state = 'waiting'",
        (str(webhook_id),),
    )


def _update(cursor: Cursor, webhook_id: UUID, values: Mapping[str, Any]) -> None:
    """Write these columns, and count the version up. The names of the columns are ours."""
    settings = "".join(f"{name} = %({name})s, " for name in values)
    cursor.execute(
        f"UPDATE webhooks SET {settings}version = version + 1 WHERE id = %(id)s::uuid",
        {**values, "id": str(webhook_id)},
    )


def _told(view: EndpointView) -> dict[str, Any]:
    """What the audit says of an endpoint that was made or deleted."""
    names = ("url", "types", "channel", "payload", "ordering", "concurrency", "position")
    return {name: getattr(view, name) for name in names}


def _plain(members: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The members as the audit has them. Of a URL it has the host only: the rest may be a secret of the receiver's."""
    if members is None:
        return None
    return {name: f"{urlsplit(value).netloc}/…" if name == "url" else value for name, value in members.items()}
