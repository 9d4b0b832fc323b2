"""The audit as people read it: newest first, page by page."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from orders.postgres.database import Connection
from orders.postgres.rows import named_rows


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """Which entries are wanted. None: of every action, by every actor, from the newest on."""

    action: str | None = None
    actor: str | None = None
    after: int | None = None
    """The entry before: only older ones are wanted."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry of the audit."""

    id: int
    at: datetime
    actor: str
    address: str | None
    action: str
    subject: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None


_COLUMNS = ", ".join(
    "host(address) AS address" if field.name == "address" else field.name for field in fields(AuditRow)
)
_CONDITIONS = {"action": "action = %(action)s", "actor": "actor = %(actor)s", "after": "id < %(after)s"}


def read_audit(connection: Connection, filters: AuditFilters, limit: int) -> tuple[list[AuditRow], int | None]:
    """The newest entries that are wanted, and the ID after which the next page begins (None: there are no more)."""
    wanted = {name: value for name in _CONDITIONS if (value := getattr(filters, name)) is not None}
    where = " AND ".join(_CONDITIONS[name] for name in wanted) or "true"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM audit WHERE {where} ORDER BY id DESC LIMIT %(limit)s",
            {**wanted, "limit": limit + 1},
        )
        rows = [AuditRow(**row) for row in named_rows(cursor)]
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None
