"""The audit: who did what that no order's history tells, like making a key. Rows are only ever added."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from orders.postgres.database import Cursor


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that was done. `action` is like `key_created`, `subject` what it was done to, like a key's ID.

    `before` and `after` are what changed, without secrets. `address` is the client's (None: the command line); what is
    no IP address is left out.
    """

    actor: str
    action: str
    subject: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    address: str | None = None
    request_id: str | None = None


def add_audit(cursor: Cursor, entry: AuditEntry) -> None:
    """Write down what was done, in the transaction that does it. Commits nothing."""
    cursor.execute(
        """INSERT INTO audit (actor, address, action, subject, before, after, request_id)
           VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (
            entry.actor,
            _as_address(entry.address),
            entry.action,
            entry.subject,
            _as_json(entry.before),
            _as_json(entry.after),
            entry.request_id,
        ),
    )


def _as_json(members: Mapping[str, Any] | None) -> str | None:
    return None if members is None else json.dumps(dict(members))


def _as_address(text: str | None) -> str | None:
    """The address, or None if it is none, like the name of a socket of this machine."""
    try:
        return (
            None if text is None else str(ip_address(text.partition("%")[0]))
        )  # behind a % is a name of the interface
    except ValueError:
        return None
