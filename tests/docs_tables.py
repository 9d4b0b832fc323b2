"""The tables in docs/ that are made from the code: `make docs-tables` writes them, a test compares them."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from orders.cli.main import cli
from orders.errors import Code
from orders.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"

WITHOUT = {
    "database_url": "an embedded PostgreSQL in `.data/`",
    "catalog_url": "the sandbox under `orders dev`; elsewhere required",
    "cart_url": "the sandbox under `orders dev`; elsewhere required",
    "orders_workflow": "the built-in one",
    "orders_connections": "half of `ulimit -n`, at most 500",
    "orders_expire": "none",
    "orders_hosts": "none",
    "orders_cors_origins": "none",
    "orders_jwt_issuer": "none",
    "orders_jwt_audience": "none",
    "orders_jwt_staff_claim": "none",
    "orders_jwt_jwks_url": "the issuer's discovery",
}
"""What holds where a setting without a default is not set."""


def errors() -> str:
    """A row for each code, in the order of statuses."""
    codes = sorted(Code, key=lambda code: code.value.status)
    rows = (
        (str(code.value.status), f"`{code.name.lower()}`", f"{code.value.title}. {code.value.advice}") for code in codes
    )
    return table(("Status", "`code`", "What it means, and what to do"), rows)


def settings() -> str:
    """A row for each setting, in the order of the code."""
    rows = (
        (f"`{name.upper()}`", _from_docs(field.description or ""), _default(name, field.default))
        for name, field in Settings.model_fields.items()
    )
    return table(("Name", "Meaning", "Default"), rows)


def commands() -> str:
    """A section for each command, by name: what it does, and its arguments and options."""
    return "\n".join(_command(name, command) for name, command in all_commands())


def all_commands() -> list[tuple[str, TyperCommand]]:
    """Every command with its name, like `export` or `keys create`, sorted by name."""
    whole = typer.main.get_command(cli)
    assert isinstance(whole, TyperGroup)
    return sorted(_below(whole, ()))


def _below(group: TyperGroup, names: tuple[str, ...]) -> Iterator[tuple[str, TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _below(command, (*names, name))
        elif isinstance(command, TyperCommand):
            yield " ".join((*names, name)), command


def _command(name: str, command: TyperCommand) -> str:
    rows = [_parameter(each) for each in command.params]
    options = "\n" + table(("Argument or option", "Meaning", "Default"), rows) if rows else ""
    return f"### orders {name}\n\n{command.help}\n{options}"


def _parameter(parameter: object) -> tuple[str, str, str]:
    assert isinstance(parameter, TyperArgument | TyperOption)
    name = " / ".join((*parameter.opts, *parameter.secondary_opts))
    if isinstance(parameter, TyperArgument):
        name = parameter.metavar or name.upper()
    elif parameter.metavar:
        name = f"{name} {parameter.metavar}"
    default = "" if parameter.default in (None, False) else f"`{parameter.default}`"
    meaning = (parameter.help or "").replace("\\[", "[")  # Typer's own markup would take [x] for a style
    return f"`{name}`", meaning, "required" if parameter.required else default


def _default(name: str, default: object) -> str:
    return WITHOUT.get(name, "") if default is None else f"`{default}`"


def _from_docs(text: str) -> str:
    """A text whose links are said from the root."""
    return text.replace("](docs/", "](")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, ["---"] * len(tuple(head)), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "errors.md": {"errors": errors},
    "settings.md": {"settings": settings},
    "cli.md": {"commands": commands},
}


def renewed(page: str, text: str) -> str:
    """The page with its tables as the code has them now."""
    for name, make in TABLES[page].items():
        text = _between(f"<!-- made by `make docs-tables`: {name} -->\n", "<!-- until here -->", make(), text)
    return text


def _between(begin: str, end: str, new: str, text: str) -> str:
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"There is no place for a table: {begin}"
    return f"{before}{begin}\n{new}\n{end}{after}"


if __name__ == "__main__":
    for page in TABLES:
        file = DOCS / page
        file.write_text(renewed(page, file.read_text()))
