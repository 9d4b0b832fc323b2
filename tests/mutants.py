"""Takes the guards out of the code, one at a time, and sees whether a test fails: `make mutants`.

In src/orders/store each condition after a WHERE, AND or ON is made to hold always: the promises hang on these, and no
tool for Python sees them. In the planner, the batch, the PUT and recovery, statements and operands are left out,
comparisons turned round, and numbers changed by one.
"""

import argparse
import ast
import contextlib
import importlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from orders.postgres import embedded
from orders.postgres.functions import Function
from tests.conftest import execute, migrated

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "orders"
CONFINED = "tests/e2e/test_confined_writing.py"
PLACING = [f"tests/integration/test_{name}.py" for name in ("guards", "recovering", "placing", "crash", "reconcile")]
COMMITS = [PLACING[0], CONFINED, *PLACING[1:]]
BATCH = [
    PLACING[2],
    CONFINED,
    *(f"tests/e2e/test_{name}.py" for name in ("contract", "dry_run", "details")),
    *PLACING[3:],
]
LIFE = [
    CONFINED,
    *(f"tests/integration/test_{name}.py" for name in ("statuses", "reconcile", "crash")),
    *(f"tests/e2e/test_{name}.py" for name in ("life", "contract")),
]
SEEN = ["tests/integration/test_seers.py", "tests/e2e/test_seers_over_http.py"]
STOCK = ("claim", "intend", "settle", "abandon", "outcomes", "orphans")
SQL_TESTS = {
    **dict.fromkeys((f"stock/{name}_sql.py" for name in STOCK), COMMITS),
    **dict.fromkeys(("placing/closings_sql.py", "order/keys_sql.py"), PLACING),
    **dict.fromkeys(("changing/change_sql.py", "order/statuses_sql.py"), LIFE),
    "order/document_sql.py": [*SEEN, *LIFE],
    "order/seer_sql.py": [CONFINED, *SEEN],
    "finding/past_sql.py": [*SEEN, "tests/e2e/test_bounds.py", *LIFE[4:]],
    "finding/part_reports_sql.py": ["tests/e2e/test_reports.py"],
    "stock/record_sql.py": ["tests/integration/test_reconcile.py", "tests/e2e/test_survival.py"],
}
PYTHON_TESTS = {
    **dict.fromkeys((f"placing/{name}.py" for name in ("batch", "settling", "sorting", "planning", "decision")), BATCH),
    "placing/recovery.py": PLACING[1:],
    "access/tokens.py": ["tests/unit/test_tokens.py", "tests/unit/test_issuer_keys.py"],
    "access/claims.py": ["tests/unit/test_tokens.py"],
    "access/jwks.py": ["tests/integration/test_issuer.py", "tests/unit/test_tokens.py"],
    "access/issuer.py": ["tests/integration/test_issuer.py"],
    "access/issuer_keys.py": ["tests/unit/test_issuer_keys.py"],
    "stock/plan.py": ["tests/unit/test_plan.py", *PLACING[2:]],
    "stock/write.py": ["tests/unit/test_stock.py", *PLACING[2:]],
}
TESTS = {PACKAGE / path: tests for path, tests in {**SQL_TESTS, **PYTHON_TESTS}.items()}
"""The tests that a file's mutants have to get past, the quick ones first. The rest of the suite is not asked."""

PATIENCE_S = 900.0
UNDECIDED = "undecided"
IMPORTED = "ignore::pytest.PytestAssertRewriteWarning"  # what the parent has imported is not rewritten

_WHOSE = "{is_seen_by("  # a condition whose text is in another file
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
        if condition and (condition.startswith(_WHOSE) or not condition.startswith("{")):
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
    give_up_at: float
    when_late: str

    def verdict(self) -> str | None:
        """The first test that fails; nothing: none does. None: not known yet."""
        is_late = time.monotonic() > self.give_up_at
        pid, status = os.waitpid(self.pid, 0 if is_late and self.kill() else os.WNOHANG)
        if not pid:
            return None
        self.kill()
        if is_late:
            return f"{self.when_late} (past {self.passed_count} tests)"
        if status and not self.result.exists():
            raise RuntimeError(f"the tests of {self.mutant.name} did not run")
        return self.result.read_text() if status else ""

    @property
    def result(self) -> Path:
        return self.folder / "failed"

    @property
    def passed(self) -> Path:
        """A byte for each test that passed."""
        return self.folder / "passed"

    @property
    def passed_count(self) -> int:
        return self.passed.stat().st_size if self.passed.exists() else 0

    def kill(self) -> bool:
        """The child and what its tests have started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return True


class Trials:
    """A pytest plugin: once the tests are collected it forks a child for each mutant, which goes on to run them."""

    def __init__(
        self, chosen: list[Mutant], dsns: list[str], given: argparse.Namespace, tests_of: Callable[[Mutant], list[str]]
    ) -> None:
        self.survivors = 0
        self._chosen = chosen
        self._tests_of = tests_of
        self._given = given
        self._dsns = dsns
        self._until = min(time.monotonic() + 60 * given.minutes, given.ends_at)
        self._result: Path | None = None
        self._passed: Path | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed:
            return None  # a file can't be collected, which pytest says
        left, tried, undecided = list(reversed(self._chosen)), 0, 0
        running: dict[str, Trial] = {}
        while running or (left and time.monotonic() < self._until):
            for dsn in self._dsns:
                if dsn not in running and left and time.monotonic() < self._until:
                    trial = self._begin(session, left.pop(), dsn)
                    if trial is None:
                        return None  # in the child: pytest runs the tests
                    running[dsn] = trial
            time.sleep(0.02)
            for dsn, trial in list(running.items()):
                if (verdict := trial.verdict()) is not None:
                    tried += 1
                    self.survivors += not verdict
                    is_undecided = verdict.startswith(UNDECIDED)
                    undecided += is_undecided
                    end = f"caught by {verdict.split('::')[-1]}" if verdict else f"SURVIVES {trial.passed_count} tests"
                    end = verdict if is_undecided else end
                    print(f"{tried}/{len(self._chosen)}  {trial.mutant.name}  {trial.mutant.what}  {end}", flush=True)
                    shutil.rmtree(running.pop(dsn).folder)
        missed = tried - self.survivors - undecided
        more = f", {undecided} undecided" if undecided else ""
        print(f"{missed} of {tried} would be missed; {self.survivors} survive{more}, {len(left)} not tried.")
        return True

    def _begin(self, session: pytest.Session, mutant: Mutant, dsn: str) -> Trial | None:
        give_up_at = min(time.monotonic() + self._given.patience, self._given.ends_at)
        trial = Trial(mutant, Path(tempfile.mkdtemp(prefix="mutant-")), 0, give_up_at, self._given.when_late)
        source = trial.folder / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        (source / mutant.path.relative_to(ROOT / "src")).write_text(mutant.text)
        trial.pid = os.fork()
        if trial.pid:
            return trial
        os.setsid()
        self._result, self._passed = trial.result, trial.passed
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.environ |= {"PYTHONPATH": str(source), "ORDERS_TEST_DSN": dsn}
        transplant(mutant)
        order = self._tests_of(mutant)
        items = [item for item in session.items if file_of(item) in order]
        session.items[:] = sorted(items, key=lambda item: order.index(file_of(item)))
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._result and report.failed:
            self._result.write_text(report.nodeid)
            os._exit(1)
        if self._passed and report.passed and report.when == "call":
            with self._passed.open("a") as passed:
                passed.write(".")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self._result:
            os._exit(exitstatus)  # without a result anything but 0 means that the tests did not run


def file_of(item: pytest.Item) -> str:
    return str(item.path.relative_to(ROOT))


def transplant(mutant: Mutant) -> None:
    """Give the functions and constants of the imported module what the mutant says, wherever they are known already."""
    name = ".".join(mutant.path.relative_to(ROOT / "src").with_suffix("").parts)
    module = importlib.import_module(name)
    changed = types.ModuleType(name)
    sys.modules[name] = changed  # dataclasses look themselves up there
    exec(compile(mutant.text, mutant.path, "exec"), changed.__dict__)
    sys.modules[name] = module
    for member, new in vars(changed).items():
        old = vars(module)[member]
        if isinstance(old, types.FunctionType) and old.__module__ == name:
            old.__code__ = new.__code__
        elif isinstance(old, type) and old.__module__ == name:
            for method in vars(old).values() if not issubclass(old, Enum) else ():
                if isinstance(method, types.FunctionType) and method.__name__ in vars(new):
                    method.__code__ = vars(new)[method.__name__].__code__
        elif isinstance(old, Function):
            vars(old).update(vars(new))  # where it is missing, it is made
        elif isinstance(old, str | tuple | int | float):
            replace_everywhere(member, old, new)


def replace_everywhere(member: str, old: object, new: object) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("orders.") and vars(module).get(member) is old:
            setattr(module, member, new)


@contextlib.contextmanager
def servers(count: int) -> Iterator[list[str]]:
    """So many PostgreSQL servers, with our tables; one does for all mutants that are tried one after the other."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        Path(folder).chmod(0o755)
        places = [Path(folder) / str(n) for n in range(count)]
        dsns = [embedded.start(place) for place in places]
        try:
            for dsn in dsns:
                execute(dsn, "ALTER SYSTEM SET fsync = off")
                execute(dsn, "SELECT pg_reload_conf()")
                migrated(dsn, "orders_test")
                migrated(dsn, "orders_served")
            yield dsns
        finally:
            for place in places:
                embedded.stop(place)


def try_all(chosen: list[Mutant], given: argparse.Namespace, tests_of: Callable[[Mutant], list[str]]) -> int:
    """Print what becomes of each; returns how many survive. Those that are not begun in time are left out."""
    tests = sorted({test for mutant in chosen for test in tests_of(mutant)})
    os.environ |= {"ORDERS_TEST_CRASH_STRIDE": "2", "ORDERS_TEST_DSN": "in each child its own"}
    with servers(given.jobs) as dsns:
        os.environ["ORDERS_TEST_KEEP_DATABASE"] = "yes"
        trials = Trials(chosen, dsns, given, tests_of)
        ended = pytest.main(["-q", "-s", "-p", "no:cacheprovider", "-W", IMPORTED, *tests], plugins=[trials])
    if ended not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError("the tests can't be collected")
    return trials.survivors


def main() -> int:
    """Try every mutant, or those whose name begins as given; exit code 1 if one survives."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("only", nargs="*", help="names to begin with, such as placing.py:19")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--sample", type=int, help="so many of them, drawn by chance")
    arguments.add_argument("--seed", type=int, default=1, help="for the sample")
    arguments.add_argument("--first", type=int, help="ask only so many of a file's test files, the quick ones")
    arguments.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds after which its tests hang")
    arguments.add_argument("--minutes", type=float, default=24 * 60, help="begin none after so long")
    arguments.add_argument("--list", action="store_true", help="only list them")
    given = arguments.parse_args()
    found = [m for path in (PACKAGE / name for name in SQL_TESTS) for m in sql_mutants(path)]
    found += [
        m
        for path in (PACKAGE / name for name in PYTHON_TESTS)
        for m in sorted(python_mutants(path), key=lambda m: m.line)
    ]
    chosen = [m for m in found if not given.only or m.name.startswith(tuple(given.only))]
    if given.sample is not None:
        chosen = random.Random(given.seed).sample(chosen, min(given.sample, len(chosen)))
    if given.list:
        print(*(f"{m.name}  {m.what}" for m in chosen), sep="\n")
        return 0
    given.ends_at, given.when_late = float("inf"), "the tests hang"
    return 1 if try_all(chosen, given, lambda mutant: TESTS[mutant.path][: given.first]) else 0


if __name__ == "__main__":
    sys.exit(main())
