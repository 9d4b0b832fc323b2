"""`orders keys`: makes, lists, rotates and revokes API keys, in the database itself. It works while no service runs."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer

from orders.access.granting import CHANNEL, LONGEST, MAX_RATE, NAME, Caller, Grant, Preset, scopes_of
from orders.access.keys import ID
from orders.access.keys_sql import MAX_LISTED, AccessKey, create_key, list_keys, revoke_key, rotate_key
from orders.cli.common import cli, cli_actor, fail, settings_of
from orders.postgres.database import Connection, opened
from orders.principal import Scope
from orders.startup import open_database

T = TypeVar("T")

CALLER = Caller(cli_actor())
"""Whoever uses the command line, as the audit names them."""

_SPAN = re.compile(r"([1-9][0-9]{0,4})([smhd])|0")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

keys = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys, in the database itself.")
cli.add_typer(keys, name="keys")

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's ID: the first 8 characters after `ord_`.")]


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is; the history of orders names it.")],
    preset: Annotated[Preset | None, typer.Option("--as", help="The work that it is for.")] = None,
    scope: Annotated[list[Scope] | None, typer.Option(help="Something that it may do. May repeat.")] = None,
    channel: Annotated[str | None, typer.Option(help="It sees and places orders of this channel only.")] = None,
    expires: Annotated[str | None, typer.Option(help="How long it lasts: 90d, 12h. Without it: until revoked.")] = None,
    rate: Annotated[int | None, typer.Option(min=1, max=MAX_RATE, help="Most requests per second.")] = None,
) -> None:
    """Make a key, and print it. It is never shown again. The first key ends the access without any."""
    _require(re.fullmatch(NAME, name), "--name: 1 to 60 of A-Z a-z 0-9, space and . _ @ -, and no space first.")
    _require(channel is None or re.fullmatch(CHANNEL, channel), "--channel: 1 to 64 of a-z 0-9 _ -")
    scopes = scopes_of([preset] if preset else [], scope or ())
    _require(scopes, f"Say what it may do: --as {' | '.join(Preset)}, or --scope, or both.")
    lasts = None if expires is None else _span(expires, "--expires", least_s=1)
    _require(lasts is None or lasts <= LONGEST, "--expires: a key lasts 100 years at most, or until it is revoked.")
    expires_at = None if lasts is None else datetime.now(UTC) + lasts
    text, key = _in_database(lambda c: create_key(c, Grant(name, scopes, channel, rate, expires_at), CALLER))
    _show_once(text, key)


@keys.command(name="list")
def list_all() -> None:
    """List the keys, newest first, with what they may do. Their secrets are nowhere any more."""
    found = _in_database(lambda c: list_keys(c, None))
    for key in found:
        typer.echo(f"{key.id}  {key.name}  {_state(key)}  {_may(key)}  {_used(key)}")
    more = f" These are the newest {MAX_LISTED}." if len(found) == MAX_LISTED else ""
    typer.echo(f"{len(found)} keys.{more}" if found else "There is no key.", err=True)


@keys.command()
def rotate(
    key_id: KeyId,
    keep_old_for: Annotated[str, typer.Option(help="How long the old key goes on: 24h, 7d, 0.")] = "24h",
) -> None:
    """Make a new key that may do the same, and print it. The old one ends after a while."""
    _require_id(key_id)
    keep = _span(keep_old_for, "--keep-old-for")
    rotated = _in_database(lambda c: rotate_key(c, key_id, keep, CALLER))
    if rotated is None:
        fail(f"There is no key {key_id}.", 1)
    _show_once(*rotated)
    typer.echo(f"The key {key_id} ends in {keep_old_for}.", err=True)


@keys.command()
def revoke(key_id: KeyId) -> None:
    """End a key at once; in running services within 5 s. Safe to repeat."""
    _require_id(key_id)
    if not _in_database(lambda c: revoke_key(c, key_id, CALLER)):
        fail(f"There is no key {key_id}.", 1)
    typer.echo(f"The key {key_id} is revoked.")


def _in_database(query: Callable[[Connection], T]) -> T:
    with opened(open_database(settings_of())) as connection:
        return query(connection)


def _show_once(text: str, key: AccessKey) -> None:
    """The key on stdout, so that a script can keep it; what there is to know about it on stderr."""
    typer.echo(text)
    typer.echo(f"This is the key {key.id} ({key.name}), and is not shown again. {_may(key)}, {_state(key)}.", err=True)


def _may(key: AccessKey) -> str:
    channel = f" (channel {key.channel})" if key.channel else ""
    rate = f", {key.rate} per second" if key.rate else ""
    return f"may {' '.join(key.scopes)}{channel}{rate}"


def _state(key: AccessKey) -> str:
    if key.revoked_at:
        return f"revoked at {_minute(key.revoked_at)}"
    replaced = f"replaced by {key.replaced_by}, " if key.replaced_by else ""
    if key.expires_at is None:
        return f"{replaced}lasts until it is revoked"
    return f"{replaced}{'expired' if key.expires_at <= datetime.now(UTC) else 'expires'} at {_minute(key.expires_at)}"


def _used(key: AccessKey) -> str:
    return f"used at {_minute(key.used_at)}" if key.used_at else "never used"


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%MZ")


def _require_id(key_id: str) -> None:
    _require(re.fullmatch(ID, key_id), f"{key_id!r} is no key's ID: it has 8 letters and digits.")


def _span(text: str, option: str, least_s: int = 0) -> timedelta:
    match = _SPAN.fullmatch(text)
    span = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match and match[2] else timedelta()
    if match is None or span.total_seconds() < least_s:
        fail(f"{option} {text}: write a number with s, m, h or d, like 90d.", 2)
    return span


def _require(is_well: object, sentence: str) -> None:
    if not is_well:
        fail(sentence, 2)
