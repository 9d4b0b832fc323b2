"""Takes the guards out of the SQL, one at a time, and sees whether a test fails: `make mutants`.

mutmut changes the Python; it can't read the conditions inside a statement, which are what holds the promises here. So
each condition after a WHERE, AND or ON in src/orders/store is found, and made to hold always.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
STORE = ROOT / "src" / "orders" / "store"
TESTS = ["tests/integration/test_placing.py", "tests/integration/test_reconcile.py", "tests/e2e/test_contract.py",
         "tests/integration/test_crash.py", "tests/e2e/test_survival.py"]  # fmt: skip
_BEGINS = re.compile(r"\b(?:WHERE|AND|ON)\s+(?!CONFLICT\b)")
_ENDS = re.compile(r'\b(?:AND|OR|WHERE|ORDER|GROUP|LIMIT|RETURNING|FOR|ON|JOIN|LEFT|THEN|UNION|SET)\b|;|"')


@dataclass(frozen=True)
class Mutant:
    """One condition, as a place in a file."""

    path: Path
    begin: int
    end: int

    @property
    def condition(self) -> str:
        return " ".join(self.path.read_text()[self.begin : self.end].split())

    @property
    def name(self) -> str:
        return f"{self.path.name}:{self.path.read_text().count(chr(10), 0, self.begin) + 1}"

    def apply(self, source: Path) -> None:
        target = source / self.path.relative_to(ROOT / "src")
        text = self.path.read_text()
        target.write_text(f"{text[: self.begin]}({text[self.begin : self.end]} OR true){text[self.end :]}")


def mutants(path: Path) -> Iterator[Mutant]:
    """Each condition of the statements in this file."""
    text = path.read_text()
    for keyword in _BEGINS.finditer(text):
        end = _end_of_condition(text, keyword.end())
        condition = text[keyword.end() : end].rstrip()
        if condition and not condition.startswith("{"):
            yield Mutant(path, keyword.end(), keyword.end() + len(condition))


def _end_of_condition(text: str, begin: int) -> int:
    depth = 0
    for at in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth < 0 or (depth == 0 and text[at] == ",") or (depth == 0 and _ENDS.match(text, at)):
            return at
    return len(text)


def survives(mutant: Mutant) -> tuple[Mutant, str]:
    """What the tests say of it: the first that fails, or nothing."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        mutant.apply(source)
        environment = {**os.environ, "PYTHONPATH": str(source), "ORDERS_TEST_CRASH_STRIDE": "2"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS]
        log = Path(folder) / "log"
        with log.open("w") as output:
            try:
                subprocess.run(
                    command, cwd=ROOT, env=environment, stdout=output, stderr=output, timeout=1200, check=False
                )
            except subprocess.TimeoutExpired:
                return mutant, "the tests hang"
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", log.read_text(), re.MULTILINE)
        return mutant, found.group(1) if found else ""


def main() -> int:
    """Try every condition, or those whose name begins as given; exit code 1 if one can go without being missed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("only", nargs="*", help="names to begin with, such as placing.py:19")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments.add_argument("--list", action="store_true", help="only list them")
    given = arguments.parse_args()
    found = [m for path in sorted(STORE.glob("*.py")) for m in mutants(path)]
    chosen = [m for m in found if not given.only or m.name.startswith(tuple(given.only))]
    if given.list:
        print(*(f"{m.name}  {m.condition}" for m in chosen), sep="\n")
        return 0
    survivors = 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for number, (mutant, killer) in enumerate(pool.map(survives, chosen), 1):
            survivors += not killer
            verdict = f"caught by {killer.split('::')[-1]}" if killer else "SURVIVES"
            print(f"{number}/{len(chosen)}  {mutant.name}  {mutant.condition}  {verdict}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} conditions are missed by a test when they are gone.")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
