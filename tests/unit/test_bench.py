"""What the bench says of its numbers: ratios round by round, goals, and a page that shows what the JSON holds."""

from pathlib import Path

import pytest

from bench import report
from bench.comparison import Goal, Result

DOCS = Path(__file__).parents[2] / "docs"


def test_a_ratio_pairs_the_two_sides_of_one_round() -> None:
    result = Result(1, "place", "place an order", "orders/s", [100, 10], [10, 1], "the naive way", Goal(at_least=10))
    assert result.ratios == [10, 10]
    assert result.is_reached


@pytest.mark.parametrize(
    ("goal", "value", "is_reached"),
    [
        (Goal(at_least=75), 75, True),
        (Goal(at_least=75), 74.9, False),
        (Goal(at_most=1.5), 1.5, True),
        (Goal(at_most=1.5), 1.6, False),
        (Goal(), 0, True),
    ],
)
def test_a_goal_is_a_bound(goal: Goal, value: float, is_reached: bool) -> None:
    assert goal.is_reached(value) is is_reached


def test_without_anything_to_compare_with_the_goal_is_about_the_value() -> None:
    assert not Result(10, "cold start", "cold start", "s", [1.4, 1.6, 1.7], goal=Goal(at_most=1.5)).is_reached


def test_the_table_says_what_was_not_reached() -> None:
    result = Result(4, "one order", "GET", "requests/s", [50, 60, 70], [100, 100, 100], "bare", Goal(at_least=0.7))
    row = report.table({"comparisons": [result.document()]}).splitlines()[-1]
    assert row == "| 4 | GET | bare | ≥ 0.7 | 0.6 (0.5 - 0.7) | 60 requests/s to 100 | **no** |"


def test_the_page_shows_what_the_json_holds() -> None:
    page = (DOCS / "speed.md").read_text().split(report.BEGIN)[1].split(report.END)[0]
    found = report.read(DOCS / "bench.json")
    assert page.strip() == (report.section(found).strip() if found else "Not measured yet: `make bench` fills this in.")
