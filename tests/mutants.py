"""Takes the guards out of the code, one at a time, and sees whether a test fails: `make mutants`.

In src/orders/store each condition after a WHERE, AND or ON is made to hold always: the promises hang on these, and no
tool for Python sees them. In the planner, the batch, the PUT and recovery, statements and operands are left out,
comparisons turned round, and numbers changed by one.
"""

import argparse
import ast
import contextlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import alembic.command  # noqa: F401 (imported for the children)
import pytest

import orders.cli  # noqa: F401 (for what it imports)
from orders import embedded
from tests.conftest import execute

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "orders"
SQL = sorted((PACKAGE / "store").glob("*.py"))
PYTHON = [PACKAGE / name for name in ("plan.py", "batch.py", "stock.py", "recovery.py")]

QUICK = [
    *(f"tests/unit/test_{name}.py" for name in ("plan", "stock")),
    *(f"tests/integration/test_{name}.py" for name in ("guards", "recovering")),
]
THOROUGH = [f"tests/integration/test_{name}.py" for name in ("placing", "crash", "reconcile")]
LIFE = [*(f"tests/integration/test_{name}.py" for name in ("statuses", "reconcile", "crash")), "tests/e2e/test_life.py"]
TESTS = {
    **dict.fromkeys(("placing.py", "claiming.py", "recovering.py", "keys.py"), (QUICK, THOROUGH)),
    **dict.fromkeys((path.name for path in PYTHON), (QUICK, THOROUGH)),
    **dict.fromkeys(("changing.py", "statuses.py", "reading.py"), (LIFE, ["tests/e2e/test_contract.py"])),
    "reconciling.py": (["tests/integration/test_reconcile.py"], ["tests/e2e/test_survival.py"]),
}
"""The tests that a file's mutants have to get past, the quick ones first. The rest of the suite is not asked."""

PATIENCE_S = 900
IMPORTED = "ignore::pytest.PytestAssertRewriteWarning"  # what the parent has imported is not rewritten

_BEGINS = re.compile(r"\b(?:WHERE|AND|ON)\s+(?!CONFLICT\b)")
_ENDS = re.compile(r'\b(?:AND|OR|WHERE|ORDER|GROUP|LIMIT|RETURNING|FOR|ON|JOIN|LEFT|THEN|UNION|SET)\b|;|"')


@dataclass(frozen=True)
class Mutant:
    """A file, and what it says instead."""

    path: Path
    line: int
    what: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.path.name}:{self.line}"


# SQL ----------------------------------------------------------------------------------------------------------------


def sql_mutants(path: Path) -> Iterator[Mutant]:
    """Each condition of the statements in this file, made to hold always."""
    text = path.read_text()
    for keyword in _BEGINS.finditer(text):
        begin, end = keyword.end(), _end_of_condition(text, keyword.end())
        condition = text[begin:end].rstrip()
        if condition and not condition.startswith("{"):
            line = text.count("\n", 0, begin) + 1
            mutated = f"{text[:begin]}({condition} OR true){text[begin + len(condition) :]}"
            yield Mutant(path, line, " ".join(condition.split()), mutated)


def _end_of_condition(text: str, begin: int) -> int:
    depth = 0
    for at in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth < 0 or (depth == 0 and text[at] == ",") or (depth == 0 and _ENDS.match(text, at)):
            return at
    return len(text)


# Python -------------------------------------------------------------------------------------------------------------

OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


def python_mutants(path: Path) -> Iterator[Mutant]:
    """Every change that `_changes` can think of inside the functions of this file; the log is left alone."""
    source = path.read_text()
    tree = ast.parse(source)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in _own_nodes(function):
                for what, changed in _changes(node):
                    yield Mutant(path, node.lineno, what, _replaced(source, node, changed))


def _own_nodes(function: ast.AST) -> Iterator[ast.stmt | ast.expr]:
    """The statements and expressions of a function, but not of one inside it, and nothing about the log."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.arguments):
            continue
        if isinstance(child, ast.Expr) and ast.unparse(child).startswith(("log.", "'", '"')):
            continue
        if isinstance(child, ast.stmt | ast.expr):
            yield child
        yield from _own_nodes(child)


def _changes(node: ast.stmt | ast.expr) -> Iterator[tuple[str, str]]:
    """What this may be replaced by: a description and the new text."""
    text = _short(ast.unparse(node))
    if isinstance(node, ast.Expr | ast.AugAssign | ast.Continue):
        yield f"without `{text}`", "pass"
    elif isinstance(node, ast.expr):
        for other in _other_values(node):
            yield f"`{text}` as `{_short(other)}`", f"({other})"


def _other_values(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Compare(left, [operator], [right]) if type(operator) in OPPOSITE:
            yield ast.unparse(ast.Compare(left, [OPPOSITE[type(operator)]()], [right]))
        case ast.BoolOp(operator, values):
            for n in range(len(values)):
                yield ast.unparse(ast.BoolOp(operator, values[:n] + values[n + 1 :]))
        case ast.UnaryOp(ast.Not(), operand) | ast.BinOp(operand, ast.Add() | ast.Sub(), _):
            yield ast.unparse(operand)
        case ast.Constant(bool(value)):
            yield repr(not value)
        case ast.Constant(int(value)):
            yield repr(value + 1)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 70 else f"{words[:67]}..."


def _replaced(source: str, node: ast.stmt | ast.expr, changed: str) -> str:
    lines = source.encode().splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    after = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    return (before + changed.encode() + after).decode()


# Trying them --------------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """The tests of one mutant, run by a child of this process: what takes long to import, this one has imported."""

    mutant: Mutant
    folder: Path
    pid: int
    begun_at: float

    def verdict(self) -> str | None:
        """The first test that fails; nothing: none does. None: not known yet."""
        if time.monotonic() > self.begun_at + PATIENCE_S:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            return "the tests hang"
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # servers of the tests that the end of these has left
        log = (self.folder / "log").read_text()
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", log, re.MULTILINE)
        if status and not failed:
            raise RuntimeError(f"the tests of {self.mutant.name} did not run: {log[-2000:]}")
        return failed.group(1) if failed else ""


def begin(mutant: Mutant, dsn: str) -> Trial:
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / mutant.path.relative_to(ROOT / "src")).write_text(mutant.text)
    pid = os.fork()
    if not pid:
        try:
            run_tests(mutant, source, dsn)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(3)
    return Trial(mutant, folder, pid, time.monotonic())


def run_tests(mutant: Mutant, source: Path, dsn: str) -> None:
    """In the child: import the mutant in place of what it was made from, and see. Does not return."""
    os.setsid()
    os.chdir(ROOT)
    log = os.open(source.parent / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"PYTHONPATH": str(source), "ORDERS_TEST_DSN": dsn, "ORDERS_TEST_CRASH_STRIDE": "2"}
    sys.path.insert(0, str(source))
    for name in [name for name in sys.modules if name.split(".")[0] in ("orders", "tests")]:
        del sys.modules[name]
    code = 0
    for tests in TESTS[mutant.path.name]:
        code = code or pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", IMPORTED, *tests])
    sys.stdout.flush()
    os._exit(code)


def try_all(chosen: list[Mutant], jobs: int, minutes: float) -> int:
    """Print what becomes of each; returns how many survive. Those that are not begun in time are left out."""
    until = time.monotonic() + 60 * minutes
    left, survivors, tried = list(reversed(chosen)), 0, 0
    running: dict[str, Trial] = {}
    with servers(jobs) as dsns:
        while running or (left and time.monotonic() < until):
            for dsn in dsns:
                if dsn not in running and left and time.monotonic() < until:
                    running[dsn] = begin(left.pop(), dsn)
            time.sleep(0.05)
            for dsn, trial in list(running.items()):
                if (verdict := trial.verdict()) is not None:
                    tried += 1
                    survivors += not verdict
                    end = f"caught by {verdict.split('::')[-1]}" if verdict else "SURVIVES"
                    print(f"{tried}/{len(chosen)}  {trial.mutant.name}  {trial.mutant.what}  {end}", flush=True)
                    shutil.rmtree(running.pop(dsn).folder)
    print(f"{tried - survivors} of {tried} are missed by a test when they are gone; {len(left)} were not tried.")
    return survivors


@contextlib.contextmanager
def servers(count: int) -> Iterator[list[str]]:
    """So many PostgreSQL servers; one does for all mutants that are tried one after the other."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        Path(folder).chmod(0o755)
        places = [Path(folder) / str(n) for n in range(count)]
        dsns = [embedded.start(place) for place in places]
        try:
            for dsn in dsns:
                execute(dsn, "ALTER SYSTEM SET fsync = off")
                execute(dsn, "SELECT pg_reload_conf()")
            yield dsns
        finally:
            for place in places:
                embedded.stop(place)


def main() -> int:
    """Try every mutant, or those whose name begins as given; exit code 1 if one survives."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("only", nargs="*", help="names to begin with, such as placing.py:19")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--sample", type=int, help="so many of them, drawn by chance")
    arguments.add_argument("--seed", type=int, default=1, help="for the sample")
    arguments.add_argument("--minutes", type=float, default=24 * 60, help="begin none after so long")
    arguments.add_argument("--list", action="store_true", help="only list them")
    given = arguments.parse_args()
    found = [m for path in SQL for m in sql_mutants(path)]
    found += [m for path in PYTHON for m in sorted(python_mutants(path), key=lambda m: m.line)]
    chosen = [m for m in found if not given.only or m.name.startswith(tuple(given.only))]
    if given.sample is not None:
        chosen = random.Random(given.seed).sample(chosen, min(given.sample, len(chosen)))
    if given.list:
        print(*(f"{m.name}  {m.what}" for m in chosen), sep="\n")
        return 0
    return 1 if try_all(chosen, given.jobs, given.minutes) else 0


if __name__ == "__main__":
    sys.exit(main())
