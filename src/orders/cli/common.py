"""What all commands share: the settings, and how errors are printed."""

import os
import pwd
import sys
from typing import Annotated, NoReturn

import typer

from orders.app import log_to_stderr
from orders.settings import Settings, load_settings
from orders.settings.unknown import tell_unknown

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


OrderIdOrNumber = Annotated[str, typer.Argument(metavar="ORDER", help="The order's ID or number.")]


Host = Annotated[str | None, typer.Option(help="The address to listen on.")]


PortNumber = Annotated[int | None, typer.Option(min=1, max=65535, help="The port to listen on.")]


CatalogPort = Annotated[int, typer.Option(min=1, max=65535, help="The sandbox catalog's port.")]


CartPort = Annotated[int, typer.Option(min=1, max=65535, help="The sandbox carts' port.")]


def settings_of(**given: object) -> Settings:
    log_to_stderr()
    tell_unknown()
    return load_settings(**{name: value for name, value in given.items() if value is not None})


def fail(sentence: str, code: int) -> NoReturn:
    typer.echo(sentence, err=True)
    sys.exit(code)


def cli_actor() -> str:
    """Whoever uses the command line, as the audit names them: `cli:anna`, by the account of the operating system."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # in a container that runs under a number without a name
        return f"cli:{os.getuid()}"
