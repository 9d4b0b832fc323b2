"""The merge patch, by the examples of RFC 7396, and what metadata may be."""

from typing import Any

import pytest

from orders.order.details import check_metadata, merge_patch


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_merge_patch_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"": 1}, "keys"),
        ({"k" * 101: 1}, "keys"),
        ({"a": {"": 1}}, "keys"),
        ({"a": "x" * 501}, "strings"),
        ({str(n): 1 for n in range(51)}, "50 members"),
        ({"a": [[[[[]]]]]}, "nested"),
        ({"a": ["x" * 8200]}, "bytes"),
        ({"a\0": 1}, "U\\+0000"),
        ({"a": ["\0"]}, "U\\+0000"),
        ({"a": ["\ud800"]}, "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        ({"a": float("nan")}, "infinite"),
        ({"a": 1e400}, "infinite"),
    ],
)
def test_metadata_that_a_database_could_not_keep_or_find_are_refused(metadata: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_metadata(metadata)


def test_metadata_up_to_the_limits_are_fine() -> None:
    check_metadata({"k" * 100: "x" * 500, "a": [[[[1, None, True, 1e300]]]], "n": 10**100, "\\u0000": "\U0001f600"})
