"""`orders audit`: who did what, from the database itself. It works while no service runs."""

import json
from dataclasses import asdict
from datetime import UTC
from typing import Annotated, Any

import typer

from orders.access.audit_reading_sql import AuditFilters, AuditRow, read_audit
from orders.cli.common import cli, settings_of
from orders.postgres.database import opened
from orders.startup import open_database


@cli.command()
def audit(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most entries.")] = 50,
    action: Annotated[str | None, typer.Option(help="Only entries of this action, like key_created.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this actor did, like cli:anna.")] = None,
    after: Annotated[int | None, typer.Option(min=1, help="Only entries older than the one with this ID.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, a line per entry, as the API has them.")] = False,
) -> None:
    """Print who did what: to keys, to many orders at once, to the stock, to the statuses. Newest first."""
    with opened(open_database(settings_of())) as connection:
        rows, _ = read_audit(connection, AuditFilters(action, actor, after), limit)
    for row in rows:
        typer.echo(_as_json(row) if as_json else _line(row))
    if not rows:
        typer.echo("There is no such entry.", err=True)


def _as_json(row: AuditRow) -> str:
    return json.dumps({**asdict(row), "at": _time(row)}, ensure_ascii=False)


def _line(row: AuditRow) -> str:
    changed = " → ".join(_short(members) for members in (row.before, row.after) if members is not None)
    parts = (str(row.id), _time(row), row.actor, row.address or "-", row.action, row.subject or "-", changed)
    return "  ".join(parts).rstrip()


def _time(row: AuditRow) -> str:
    return row.at.astimezone(UTC).isoformat().replace("+00:00", "Z")


MAX_SHOWN = 200
"""Maximum length of what an entry's line says of one state, in characters. JSON has all of it."""


def _short(members: dict[str, Any]) -> str:
    text = json.dumps(members, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
