"""Names are cut to fit into an order's document, the longest first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.order.sizes import MAX_NAMES_BYTES, names_that_fit, stored_bytes


@given(st.lists(st.tuples(st.text(max_size=20), st.integers(1, 500)), max_size=60))
def test_names_fit_whatever_they_are(parts: list[tuple[str, int]]) -> None:
    names = [text * count for text, count in parts]
    kept = names_that_fit(names)
    assert len(kept) == len(names)
    assert sum(map(stored_bytes, kept)) <= MAX_NAMES_BYTES or sum(map(stored_bytes, names)) <= MAX_NAMES_BYTES
    for name, was in zip(kept, names, strict=True):
        assert name == was or (name.endswith("…") and was.startswith(name[:-1]) and len(name) <= len(was))


def test_names_of_the_usual_length_are_kept() -> None:
    names = [f"Whispers of the Night, volume {n}" for n in range(500)]
    assert names_that_fit(names) == names


def test_five_hundred_of_the_longest_names_have_the_same_share() -> None:
    kept = names_that_fit(["x" * 10_000] * 500)
    assert kept == [kept[0]] * 500
    assert 60 < len(kept[0]) < 80
    assert sum(map(stored_bytes, kept)) > 0.95 * MAX_NAMES_BYTES


def test_a_short_name_is_not_cut_for_the_sake_of_a_long_one() -> None:
    kept = names_that_fit(["Tea", "☎" * 20_000, "Coffee"])
    assert (kept[0], kept[2]) == ("Tea", "Coffee")
    assert stored_bytes(kept[1]) > 0.99 * MAX_NAMES_BYTES - 20


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1e308, 309),
        (1e-7, 9),
        (2.5, 3),
        (1.0, 3),
        (10**30, 31),
        ("é", 4),
        ("\n", 4),
        ([1, 2], 6),
        ({"a": [], "b": {}}, 18),
    ],
)
def test_numbers_are_measured_written_out(value: object, size: int) -> None:
    assert stored_bytes(value) == size
