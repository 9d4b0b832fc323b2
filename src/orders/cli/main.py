"""The command line's entry. Errors are one clear sentence and an exit code: 2 for a setting, 1 for everything else."""

import atexit
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from orders.cli import audit, events, keys, listen, operate, orders, relay, serve, webhooks
from orders.cli.common import cli, fail
from orders.errors import Code, OrderError
from orders.postgres.database import DatabaseUnavailable, SchemaError
from orders.settings import SettingsError
from orders.version import VERSION

COMMANDS = (audit, serve, orders, events, listen, relay, webhooks, keys, operate)
"""Modules that put their commands into `cli` when they are imported."""


def main() -> NoReturn:
    """Run the command line, and end the process.

    Python's shutdown sometimes aborts while threads of the HTTP client still run. So we run the exit handlers, flush,
    and call os._exit.
    """
    code: int | str | None = 0
    try:
        _run_command()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else bool(code))


def _run_command() -> None:
    try:
        cli()
    except SettingsError as error:
        fail(str(error), 2)
    except OrderError as error:
        fail(error.detail, 2 if error.code is Code.INVALID_REQUEST else 1)
    except (DatabaseUnavailable, SchemaError) as error:
        fail(str(error), 1)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"orders {VERSION}")
        raise typer.Exit


@cli.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An order management service that never oversells, never loses and never doubles an order."""
