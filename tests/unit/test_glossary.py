"""The glossary keeps up with the code: its words are in use, ours are in it, and it is sorted."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"

INVENTED = {
    "adopted",
    "attached",
    "batch",
    "bulk request",
    "cart closing",
    "circuit open",
    "claim",
    "coalescer",
    "details",
    "disputed",
    "doubt",
    "drift",
    "dry run",
    "due back",
    "edge",
    "entry",
    "fate",
    "flow",
    "fragile neighbour",
    "gate",
    "hold",
    "horizon",
    "in short",
    "intent",
    "journey",
    "key",
    "land",
    "lane",
    "lease",
    "limiter",
    "line",
    "linger",
    "mixed up",
    "neighbour",
    "orphan",
    "outcome",
    "passed over",
    "plan",
    "probe",
    "proven",
    "quiet",
    "record",
    "rehearse",
    "rest",
    "round",
    "seer",
    "settle",
    "simpler service",
    "status count",
    "straggler",
    "table of statuses",
    "take over",
    "turn",
    "verdict",
    "witness",
}
"""Words to which this project gives a sense of its own. Whoever invents another one adds it here, and explains it."""


def tables() -> list[list[list[str]]]:
    """The cells of each table in the glossary, without its head."""
    found = re.findall(r"(?:^\|.*\n)+", GLOSSARY.read_text(), re.MULTILINE)
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in t.splitlines()[2:]] for t in found]


def words() -> list[list[str]]:
    return tables()[0]


def everything() -> str:
    """The text of the source and of the other pages, in lower case and with words apart."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    text = " ".join(file.read_text() for file in files if file != GLOSSARY)
    return re.sub(r"[\s_-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)).lower()


def test_every_word_is_used() -> None:
    text = everything()
    unused = [word for word, *_ in words() if not re.search(rf"\b{word}", text)]
    assert not unused, f"These words of the glossary are in no source and on no page: {unused}"


def test_every_word_of_ours_is_explained() -> None:
    assert not INVENTED - {word for word, *_ in words()}


def test_the_glossary_is_sorted() -> None:
    for table in tables():
        ordered = [row[0].casefold() for row in table]
        assert ordered == sorted(set(ordered))


def test_every_word_has_a_sentence_and_a_place_that_exists() -> None:
    for word, meaning, _, where in words():
        assert meaning.endswith("."), word
        places = re.findall(r"`([^`]+)`", where)
        assert places, word
        for place in places:
            assert (ROOT / "src" / "orders" / place).exists(), f"{word}: {place} is gone"
