"""Which characters references and notes may have, and what a spreadsheet takes for a formula."""

import re
import unicodedata
from collections.abc import Callable

import pytest

from orders.order.texts import PROSE, VISIBLE, as_prose, as_reference, is_formula


@pytest.mark.parametrize(
    "text",
    [
        "a\x00", "a\n", "a\x7f", "a\x9f", "\xad", "a\u200bb", "\u200e", "\u2028", "\u2029", "\u202e", "\u2060",
        "\ufeff",
        "\ufdd0", "\uffff", "\U0001ffff", "\ud800", "\U000e0041", "\U0001d173",
    ],
)  # fmt: skip
def test_a_reference_has_nothing_that_nobody_sees(text: str) -> None:
    with pytest.raises(ValueError, match=r"U\+"):
        as_reference(text)


@pytest.mark.parametrize("text", ["web-4711", "a b", "é", "日本語", "☎", "\U0001f600", "\ue000", "a\u00a0b", "\u0301"])
def test_a_reference_may_have_whatever_is_seen(text: str) -> None:
    assert as_reference(text) == text


def test_two_references_that_look_alike_are_alike() -> None:
    assert as_reference("Cafe\u0301") == as_reference("Caf\u00e9") == "Caf\u00e9"
    assert as_reference("\u212b") == "\u00c5"


def test_a_reference_is_as_short_after_it_was_normalised() -> None:
    assert as_reference("e\u0301" * 127) == "\u00e9" * 127
    assert as_reference("\u0958" * 127) == "\u0915\u093c" * 127
    with pytest.raises(ValueError, match="255"):
        as_reference("\u0958" * 128)


@pytest.mark.parametrize(
    "text", ["a\x00", "\x1b[31m", "\x7f", "\x85", "\u202eabc", "\u2066", "\ufdd0", "\ufffe", "\udfff"]
)
def test_prose_has_no_controls_and_does_not_turn_the_writing_round(text: str) -> None:
    with pytest.raises(ValueError, match=r"U\+"):
        as_prose(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ring twice. ☎",
        "two\r\nlines\n\tand a tab",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0645\u06cc\u200c\u062e\u0648",
        "\u200f",
    ],
)
def test_prose_is_kept_as_it_is(text: str) -> None:
    assert as_prose(text) == text


@pytest.mark.parametrize(("pattern", "check"), [(VISIBLE, as_reference), (PROSE, as_prose)])
def test_the_pattern_in_the_document_says_the_same_of_the_basic_plane(
    pattern: str, check: Callable[[str], str]
) -> None:
    in_full = re.compile(pattern.replace("$", r"\Z"))
    for point in (*range(0xD800), *range(0xE000, 0x10000)):
        character = chr(point)
        try:
            is_taken = bool(check(character))
        except ValueError:
            is_taken = False
        is_reserved = unicodedata.category(character) == "Cn"  # Unicode grows; the pattern leaves it room
        assert bool(in_full.match(character)) == is_taken or (is_taken and is_reserved), hex(point)


@pytest.mark.parametrize(
    "text",
    [
        "=1", "+1", "-1", "@x", " =1", "\t=1", "\n=1", "\ufeff=1", "\u200b\u200d =1", "\u00a0=1", "\u3000=1",
        "\u2028=1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20x", "\ufeff \uff1d1", "\ufe661", "\ufe621",
    ],
)  # fmt: skip
def test_what_a_spreadsheet_would_run_is_a_formula(text: str) -> None:
    assert is_formula(text)


@pytest.mark.parametrize(
    "text", ["", " ", "\ufeff", "a=1", "1+1", " a", "Whispers of the Night", "é", '{"a": 1}', "☎ =1"]
)
def test_other_texts_are_none(text: str) -> None:
    assert not is_formula(text)
