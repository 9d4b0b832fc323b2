"""The table of statuses: the built-in one pair by pair, a shop's own against everything Hypothesis can think of."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from orders.order.statuses import RETURNED, Workflow, load_workflow, parse_workflow
from orders.settings import SettingsError
from tests.workflows import tables

BUILT_IN = load_workflow()
NAMES = list(BUILT_IN.by_name)
LINE = ("Ordered", "Confirmed", "Paid", "Processing", "Shipped", "Delivered", "Completed")
FORWARD = {(a, b) for i, a in enumerate(LINE) for b in LINE[i + 1 :]}
ASIDE = {
    *((s, t) for s in ("Ordered", "Confirmed", "Paid", "Processing") for t in ("On Hold", "Cancelled")),
    *((s, t) for s in ("Shipped", "Delivered") for t in ("Returned", "Refunded")),
    ("On Hold", "Cancelled"),
    ("Returned", "Refunded"),
}


@pytest.mark.parametrize("now", NAMES)
@pytest.mark.parametrize("then", NAMES)
def test_every_pair_that_is_not_in_the_table_is_refused(now: str, then: str) -> None:
    assert (then in BUILT_IN.allowed(now)) == ((now, then) in FORWARD | ASIDE)


def test_on_hold_goes_back_to_where_it_was() -> None:
    assert BUILT_IN.allowed("On Hold", "Paid") == ("Paid", "Cancelled")


def test_final_is_final() -> None:
    finals = {status.name for status in BUILT_IN.statuses if status.is_final}
    assert finals == {"Completed", "Cancelled", "Refunded", "Failed"}
    assert all(BUILT_IN.allowed(status) == () for status in finals)


def test_an_adopted_order_in_a_status_that_is_none_of_ours_can_go_anywhere_but_back_to_being_placed() -> None:
    for status in ("Awaiting Pickup", "Pending"):
        assert set(BUILT_IN.allowed(status, adopted=True)) == set(NAMES) - {"Pending", "Failed"}


@pytest.mark.parametrize("text", ["on hold", "On_Hold", "ON  HOLD", " on hold "])
def test_case_and_spacing_do_not_matter(text: str) -> None:
    assert BUILT_IN.parse(text) == "On Hold"


def test_an_unknown_status_is_none() -> None:
    assert BUILT_IN.parse("teleported") is None


SHOP = """
line = ["Ordered", "Packed"]
[statuses.Ordered]
next = ["Cancelled"]
[statuses.Packed]
final = true
[statuses.Cancelled]
final = true
gives_stock_back = true
"""


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("[statuses.Ordered]", "[statuses.Ordered", "it is not TOML: "),
        ("line =", "lines =", "lines: Extra inputs are not permitted"),
        ("final = true\n[", 'final = "yes"\n[', "statuses.Packed.final: Input should be a valid boolean"),
        ("[statuses.Ordered]", "[statuses.Placed]", "statuses: Ordered is missing"),
        ('["Cancelled"]', '["Canceled"]', "no status 'Canceled'; did you mean 'Cancelled'?"),
        ('"Packed"]', '"Paked"]', "line: there is no status 'Paked'; did you mean 'Packed'?"),
        ('"Packed"]', '"Packed", "Ordered"]', "line: a status is named twice"),
        ('["Cancelled"]', '["Cancelled", "Ordered"]', "statuses.Ordered.next: a status can't follow itself"),
        ('["Cancelled"]', '["Pending"]', "statuses.Ordered.next: only the service moves an order to Pending"),
        ("[statuses.Packed]", '[statuses.Failed]\n[statuses.Packed]', "this status belongs to the service"),
        ("[statuses.Packed]", '[statuses.packed]\n[statuses.Packed]', "statuses.Packed: this is the same name"),
        ("[statuses.Packed]", '[statuses."A  B"]\nfinal = true\n[statuses.Packed]', 'statuses."A  B": a name is words'),
        ('["Cancelled"]', "[]", "statuses.Cancelled: no order can get here from Ordered"),
        ("[statuses.Packed]\nfinal = true", "[statuses.Packed]", "statuses.Packed: nothing may follow it"),
        ("[statuses.Packed]", '[statuses.Packed]\nnext = ["Cancelled"]', "it is final, and yet Cancelled may follow"),
        ("[statuses.Packed]", "[statuses.Packed]\nhold = true", "statuses.Packed: a hold can't be final"),
        ("gives_stock_back = true", "", "statuses.Cancelled: a cancelled order gives its stock back"),
        ("[statuses.Ordered]", "[statuses.Ordered]\ngives_stock_back = true", "needs its stock"),
        (
            "final = true\ngives",
            'next = ["Packed"]\ngives',
            None,
        ),
        (
            "[statuses.Packed]\nfinal = true",
            '[statuses.Packed]\nnext = ["Back"]\n[statuses.Back]\nnext = ["Cancelled"]\ngives_stock_back = true',
            "statuses.Back: its stock is dealt with, and yet Cancelled can follow",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_said_with_its_place(
    tmp_path: Path, before: str, after: str, sentence: str | None
) -> None:
    assert before in SHOP
    file = tmp_path / "shop.toml"
    file.write_text(SHOP.replace(before, after, 1))
    if sentence is None:
        load_workflow(file)
        return
    with pytest.raises(SettingsError) as caught:
        load_workflow(file)
    assert sentence in str(caught.value)
    assert all(line.startswith(f"ORDERS_WORKFLOW: {file}: ") for line in str(caught.value).splitlines())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml can't be read"):
        load_workflow(tmp_path / "nowhere.toml")


def parsed(text: str) -> Workflow:
    try:
        return parse_workflow(text)
    except ValueError:
        assume(False)
        raise


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(tables(), st.lists(st.integers(0, 9), max_size=30))
def test_whatever_way_an_order_goes_its_stock_goes_back_at_most_once(text: str, choices: list[int]) -> None:
    workflow = parsed(text)
    status, held_from, came_back = "Ordered", None, 0
    for choice in choices:
        allowed = workflow.allowed(status, held_from)
        if not allowed:
            assert workflow.by_name[status].is_final
            break
        following = allowed[choice % len(allowed)]
        assert following in workflow.by_name
        assert following not in ("Pending", "Failed", status)
        held_from = status if workflow.by_name[following].is_hold else None
        status = following
        came_back += workflow.by_name[status].gives_stock_back or status == RETURNED
        assert came_back <= 1


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(tables())
def test_the_diagram_shows_every_status_and_leaves_out_only_skips_along_the_line(text: str) -> None:
    workflow = parsed(text)
    lines = workflow.mermaid().splitlines()
    assert len([line for line in lines if '["' in line]) == len(workflow.statuses)
    place = {name: n for n, name in enumerate(workflow.line)}
    steps = {(s.name, t) for s in workflow.statuses for t in s.following}
    skips = {(a, b) for a, b in steps if a in place and place.get(b, -1) > place[a] + 1}
    assert len([line for line in lines if "->" in line or "=>" in line]) == len(steps - skips) + 2


def test_labels_cannot_break_the_diagram() -> None:
    table = parse_workflow(SHOP.replace("[statuses.Packed]", '[statuses.Packed]\nlabel = "a\\"]; #b <c>"'))
    assert '(["a#34;]#59; #35;b #60;c#62;"])' in table.mermaid()
