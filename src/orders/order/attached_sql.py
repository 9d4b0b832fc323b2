"""The details of orders in SQL. All of it is made from ATTACHED, so no statement names these columns itself."""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from orders.order.model import ATTACHED, Details, Field

NAMES = ", ".join(field.name for field in ATTACHED)
"""The columns, as an INSERT names them."""

ARRAYS = ", ".join(f"%(attached_{field.name})s::{field.type}[]" for field in ATTACHED)
"""The columns as arguments of unnest(): an element per order. `attached_parameters` has the values."""

ASSIGNMENTS = ", ".join(f"{field.name} = n.{field.name}" for field in ATTACHED)
"""The columns, set to those of the row `n`."""

COLUMNS = {field.name: f"o.{field.name}" + ("::text" if field.type == "jsonb" else "") for field in ATTACHED}
"""The columns of the order `o`, as `Details` has them."""

SEEN_COLUMNS = {
    field.name: f"CASE WHEN %(sees_private)s THEN {COLUMNS[field.name]} END"
    if field.is_private
    else COLUMNS[field.name]
    for field in ATTACHED
}
"""The same columns, null where the seer does not see them. `seer_values` has the parameter."""

BYTES = " + ".join(f"coalesce(octet_length({column}), 0)" for column in COLUMNS.values())
"""The size of the details of the order `o`, in bytes."""


def attached_parameters(details: Sequence[Details]) -> dict[str, list[Any]]:
    """The values of ARRAYS."""
    return {f"attached_{field.name}": [getattr(one, field.name) for one in details] for field in ATTACHED}


def attached_row(details: Details) -> dict[str, Any]:
    """The columns as members of a JSON object, from which PostgreSQL makes a row."""
    texts = ((field, getattr(details, field.name)) for field in ATTACHED)
    return {field.name: json.loads(text) if text and field.type == "jsonb" else text for field, text in texts}


def members(sees_private: str) -> str:
    """The details as members of the JSON of the order `o`. `sees_private`: SQL for whether private ones are shown."""
    parts = []
    for name, group in groupby(ATTACHED, key=lambda field: field.path[0]):
        fields = list(group)
        nested = [f"'{field.path[1]}', {_member(field, sees_private)}" for field in fields if len(field.path) > 1]
        one = f"json_build_object({', '.join(nested)})" if nested else _member(fields[0], sees_private)
        parts.append(f"'{name}', {one}")
    return ",\n    ".join(parts)


def hidden(column: str, sees_private: str) -> str:
    """SQL for the `column`, a JSON object of some members of an order, with null for the private ones unless they are
    shown.
    """
    without = column
    for field in ATTACHED:
        if field.is_private:
            without = f"jsonb_set({without}, '{{{','.join(field.path)}}}', 'null', false)"
    return f"CASE WHEN {sees_private} THEN {column} ELSE {without} END"


def _member(field: Field, sees_private: str) -> str:
    if field.is_private:
        return f"CASE WHEN {sees_private} THEN o.{field.name} END"
    return f"coalesce(o.{field.name}, '{{}}')" if field.type == "jsonb" else f"o.{field.name}"
