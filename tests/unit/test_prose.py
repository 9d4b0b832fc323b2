"""Docstrings begin with their subject: a reader whose mother tongue is another one needs no riddles."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SOURCE = ROOT / "src" / "orders"

RIDDLES = ("So long", "So many", "So much", "So often", "Who ", "For who", "Not before", "Of those", "Of a", "Of the")
"""Openings whose subject comes later, or never."""

FILES = [
    *sorted(SOURCE.rglob("*.py")),
    *sorted((ROOT / "bench").glob("*.py")),
    *sorted((ROOT / "tests" / "chaos").glob("*.py")),
]


def texts(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Each docstring with its line, and whether it belongs to a constant: it stands right behind an assignment."""
    for node in ast.walk(tree):
        before: ast.stmt | None = None
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():  # a lambda's body is no list
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text.strip(), isinstance(before, ast.Assign | ast.AnnAssign)
            before = statement


def riddle(text: str, *, of_constant: bool) -> str | None:
    """What is wrong with the opening of a docstring, if anything is."""
    if found := next((opening for opening in RIDDLES if text.startswith(opening)), None):
        return f"begins with {found!r}: say the subject first"
    if of_constant and (text[:1].islower() or text.startswith("So ")):
        return "is a constant's, and should begin with what it is: 'Maximum …', 'Timeout for …', 'Pause between …'"
    return None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_docstrings_begin_with_their_subject(file: Path) -> None:
    found = [(line, text, riddle(text, of_constant=of)) for line, text, of in texts(ast.parse(file.read_text()))]
    assert not [f"line {line} {why}: {text[:60]}" for line, text, why in found if why]


@pytest.mark.parametrize(
    ("source", "is_riddle"),
    [
        ('PAUSE_S = 1\n"""So long do we wait."""', True),
        ('PAUSE_S: int = 1\n"""seconds until the next try."""', True),
        ('def f():\n    """Who asks."""', True),
        ('class C:\n    most = 1\n    """So many at once."""', True),
        ('PAUSE_S = 1\n"""Pause between two tries."""', False),
        ('PAUSE_S = 1\n"""How long we wait."""', False),
    ],
)
def test_a_riddle_is_seen(source: str, is_riddle: bool) -> None:
    found = [riddle(text, of_constant=of) for _, text, of in texts(ast.parse(source))]
    assert any(found) == is_riddle
