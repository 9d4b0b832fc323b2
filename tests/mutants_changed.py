"""A sample of mutants on the lines that changed, within a minute: `make mutants-changed` (BASE=main SECONDS=120).

It is `make mutants` for a review. The mutants are those of the changed lines of src/orders, drawn by chance. Each has
to get past the test files that are nearest to its module. One that survives may still be caught by the whole suite.
"""

import argparse
import contextlib
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grimp

from tests.mutants import ROOT, UNDECIDED, Mutant, python_mutants, sql_mutants, try_all

SOURCE = ROOT / "src"
LEFT_ALONE = ("migrations", "sandbox")
"""Folders whose files are not mutated: migrations are tested as a whole, and the sandbox is a toy."""

KINDS = ("unit", "integration", "e2e")
HUBS = {"orders.app", "orders.machinery", "orders.previews", "orders.startup", "orders.cli.main"}
"""Modules that import nearly everything: that a test imports one of them says little about what it tests."""

LEVELS = 3
"""How far a test may be from a module: it imports the module, or what imports it, or what imports that."""

SLOW = ("test_crash.py",)
"""Tests that take minutes."""

JOURNEYS = {"changing": "life", "finding": "lists", "wire": "edge", "neighbours": "fragile_neighbours"}
"""The end-to-end tests of a package's files that no other test imports; `contract` for other packages."""

END = 0.15
"""Part of the time that is kept for the end: the databases are stopped, and their folders removed."""

TRIED_PER_S = 0.5
"""Most mutants that can be tried in a second. Tests that no mutant of the sample needs are not collected."""


# What changed -------------------------------------------------------------------------------------------------------


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def default_base() -> str:
    """origin/main or, where that is what is checked out (or is not there), the commit before."""
    with contextlib.suppress(subprocess.CalledProcessError):
        if git("rev-parse", "origin/main") != git("rev-parse", "HEAD"):
            return "origin/main"
    return "HEAD~1"


def changed_lines(diff: str) -> dict[Path, set[int]]:
    """The lines of each file that a diff without context adds or changes."""
    found: dict[Path, set[int]] = {}
    path = None
    for line in diff.splitlines():
        if line.startswith("+++ "):
            path = ROOT / line.removeprefix("+++ b/")
        elif path and (hunk := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line)):
            first, count = int(hunk[1]), int(hunk[2] or 1)
            found.setdefault(path, set()).update(range(first, first + count))
    return found


def mutants_of(changed: dict[Path, set[int]]) -> Iterator[Mutant]:
    """The mutants on these lines."""
    for path, lines in sorted(changed.items()):
        if path.suffix == ".py" and path.exists() and not set(path.parts) & set(LEFT_ALONE):
            for mutant in (*sql_mutants(path), *python_mutants(path)):
                if mutant.line in lines:
                    yield mutant


# Which tests are asked ----------------------------------------------------------------------------------------------


class Nearest:
    """The test files that are nearest to a module: those that import it, those that import what imports it, and those
    of its journey.
    """

    def __init__(self, count: int) -> None:
        self._graph = grimp.build_graph("orders", cache_dir=None)
        self._count = count
        self._tests = {
            path: _imports(path) for kind in KINDS for path in sorted((ROOT / "tests" / kind).glob("test_*.py"))
        }

    def __call__(self, mutant: Mutant) -> list[str]:
        module = module_of(mutant.path)
        found, modules = [], {module}
        for _ in range(LEVELS):
            found += self._that_import(modules)
            modules = {above for one in modules for above in self._graph.find_modules_that_directly_import(one)} - HUBS
        nearest = dict.fromkeys([*found, journey_of(module)])
        return [str(path.relative_to(ROOT)) for path in nearest][: self._count]

    def _that_import(self, modules: set[str]) -> list[Path]:
        """The tests that import one of these; those that need least, and the small ones, first."""
        found = [path for path, imported in self._tests.items() if imported & modules and path.name not in SLOW]
        return sorted(found, key=lambda path: (KINDS.index(path.parent.name), path.stat().st_size))


def journey_of(module: str) -> Path:
    package = module.split(".")[1] if "." in module else ""
    return ROOT / "tests" / "e2e" / f"test_{JOURNEYS.get(package, 'contract')}.py"


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> set[str]:
    """The modules of the service that a test imports. `from orders.stock import plan` is counted as two."""
    found = set()
    for module, names in re.findall(
        r"^(?:from|import) (orders[\w.]*)(?: import ([^#\n]+|\([^)]+\)))?", path.read_text(), re.M
    ):
        found |= {module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))}
    return found


# Trying them --------------------------------------------------------------------------------------------------------


def main() -> int:
    """Try as many as there is time for; exit code 1 if one survives."""
    began = time.monotonic()
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--base", help="the commit before the change (origin/main, or HEAD~1)")
    arguments.add_argument("--seconds", type=float, default=60, help="what all of it may take")
    arguments.add_argument("--files", type=int, default=2, help="test files that a mutant has to get past")
    arguments.add_argument("--patience", type=float, default=20, help="seconds after which a mutant is left undecided")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--seed", type=int, default=1, help="for the sample")
    given = arguments.parse_args()
    base = given.base or default_base()
    changed = changed_lines(git("diff", "-U0", "-M", "--merge-base", base, "--", "src/orders"))
    lines = sum(map(len, changed.values()))
    chosen = list(mutants_of(changed))
    print(
        f"{lines} lines of {len(changed)} files changed since {base}: {len(chosen)} mutants, of which a sample is tried"
    )
    chosen = random.Random(given.seed).sample(chosen, min(len(chosen), int(given.seconds * TRIED_PER_S)))
    given.when_late = UNDECIDED
    given.ends_at = began + given.seconds * (1 - END)
    given.minutes = 24 * 60
    return 1 if chosen and try_all(chosen, given, Nearest(given.files)) else 0


if __name__ == "__main__":
    sys.exit(main())
