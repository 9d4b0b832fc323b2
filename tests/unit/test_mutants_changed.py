"""`make mutants-changed` takes the lines that changed, and asks the tests that are near."""

from pathlib import Path

from tests.mutants import ROOT, Mutant
from tests.mutants_changed import Nearest, changed_lines, mutants_of

DIFF = """\
diff --git a/src/orders/a.py b/src/orders/b.py
--- a/src/orders/a.py
+++ b/src/orders/b.py
@@ -1 +2,3 @@ def one():
+x
@@ -10,2 +13,0 @@ def two():
-y
diff --git a/gone.py b/gone.py
--- a/gone.py
+++ /dev/null
@@ -1,2 +0,0 @@
-z
"""


def test_the_lines_that_a_diff_adds_or_changes_are_found() -> None:
    assert changed_lines(DIFF)[ROOT / "src/orders/b.py"] == {2, 3, 4}
    assert not any(lines for path, lines in changed_lines(DIFF).items() if path.name != "b.py")


def test_only_what_is_on_these_lines_is_mutated(tmp_path: Path) -> None:
    file = tmp_path / "stock.py"
    file.write_text(
        'def left(n, sold):\n    """What is left."""\n    if n > sold:\n        return n - sold\n    return 0\n'
    )
    assert {mutant.line for mutant in mutants_of({file: set(range(9))})} == {3, 4, 5}
    assert [mutant.what for mutant in mutants_of({file: {3}})] == ["`n > sold` as `n >= sold`"]
    assert not list(mutants_of({tmp_path / "gone.py": {1}, tmp_path / "migrations" / "0001.py": {1}}))


def test_every_file_has_a_test_that_is_near_and_the_nearest_is_first() -> None:
    nearest = Nearest(2)
    for path in {*(ROOT / "src" / "orders").rglob("*.py")} - {*(ROOT / "src" / "orders").rglob("migrations/**/*.py")}:
        tests = nearest(Mutant(path, 1, "", ""))
        assert tests, path
        assert all((ROOT / test).exists() for test in tests), path
    (plan,) = (ROOT / "src" / "orders").rglob("plan.py")
    assert nearest(Mutant(plan, 1, "", ""))[0] == "tests/unit/test_plan.py"
