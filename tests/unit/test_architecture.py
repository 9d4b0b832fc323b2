"""The house stays readable: no long file, function or class, and each library only where it belongs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "orders"

MAX_FILE_LINES = 350
"""Maximum lines of a file."""

MAX_FUNCTION_LINES = 45
"""Maximum lines of a function, with its decorators."""

MAX_CLASS_LINES = 250
"""Maximum lines of a class."""

TOO_LONG: set[str] = set()
"""What is longer than it may be, until somebody splits it."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts)
"""Migrations are never changed after a release, so they are not here."""


def long_pieces(path: Path, name: str) -> Iterator[str]:
    """The names of what is too long in this file, as TOO_LONG has them."""
    text = path.read_text()
    if text.count("\n") > MAX_FILE_LINES:
        yield name
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            most = MAX_CLASS_LINES if isinstance(node, ast.ClassDef) else MAX_FUNCTION_LINES
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if (node.end_lineno or first) - first + 1 > most:
                yield f"{name}: {node.name}"


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_nothing_is_longer_than_it_may_be_and_no_exception_is_left_over() -> None:
    found = {piece for path in FILES for piece in long_pieces(path, name_of(path))}
    assert found - TOO_LONG == set(), "These are too long: split them."
    assert TOO_LONG - found == set(), "These are short enough now: take them out of TOO_LONG."


def test_what_is_too_long_is_found(tmp_path: Path) -> None:
    def named(text: str) -> list[str]:
        (tmp_path / "one.py").write_text(text)
        return list(long_pieces(tmp_path / "one.py", "one.py"))

    line = "    x = 1\n"
    assert named("x = 1\n" * 350) == []
    assert named("x = 1\n" * 351) == ["one.py"]
    assert named("@staticmethod\ndef f():\n" + line * 43) == []
    assert named("@staticmethod\nasync def f():\n" + line * 44) == ["one.py: f"]
    assert named("class C:\n" + line * 249) == []
    assert named("class C:\n" + line * 250) == ["one.py: C"]


# Libraries -----------------------------------------------------------------------------------------------------------


def imported(path: Path) -> set[str]:
    """The packages that this file imports, at its beginning or later."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.split(".")[0] for name in names}


def test_only_postgres_and_files_of_sql_know_the_driver() -> None:
    knowing = {name_of(path) for path in PACKAGE.rglob("*.py") if "psycopg2" in imported(path)}
    assert knowing
    assert [name for name in knowing if not name.startswith("postgres/") and not name.endswith("_sql.py")] == []


def test_no_file_of_sql_knows_http() -> None:
    files = [path for path in FILES if path.name.endswith("_sql.py")]
    assert len(files) > 10
    assert [name_of(path) for path in files if imported(path) & {"fastapi", "starlette"}] == []


@pytest.mark.parametrize(
    ("file", "line", "is_refused"),
    [
        ("stock/probe.py", "import psycopg2", True),
        ("stock/probe.py", "from psycopg2.extras import execute_values", True),
        ("stock/probe.py", "from fastapi import Request", True),
        ("stock/probe.py", "from starlette.requests import Request", True),
        ("stock/probe.py", "from pydantic import BaseModel", True),
        ("changing/probe.py", "import psycopg2", True),
        ("finding/probe.py", "from fastapi import Request", True),
        ("stock/probe_sql.py", "import psycopg2", False),
        ("postgres/probe.py", "import psycopg2", False),
        ("finding/probe_routes.py", "from fastapi import Request", False),
        ("wire/probe.py", "from starlette.requests import Request", False),
    ],
)
def test_ruff_refuses_a_library_in_a_room_that_it_does_not_belong_to(file: str, line: str, is_refused: bool) -> None:
    """Ruff is given the text and the name that the file would have, so nothing is written into the package."""
    name = str(PACKAGE / file)
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--stdin-filename", name, "-"],
        input=f"{line}\n", cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ("TID251" in checked.stdout) == is_refused, checked.stdout + checked.stderr
    assert checked.returncode == is_refused
