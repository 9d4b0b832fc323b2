"""No order is read for nobody in particular: each function that reads orders says for whom."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest

from orders import finding, order
from orders.postgres.database import Connection

WITHOUT = {
    "statuses_there_are": "which statuses a shop has is no secret",
    "sum_up_a_day": "sums of all orders, kept in the database",
    "count_standings": "counts of all orders, kept in the database",
    "read_pasts": "for messages to webhooks; which orders it may be is decided where their deliveries are written",
    "fetch": "runs the statement of its caller",
}
"""Functions with a connection that need no seer, and why."""

PART = "part"
"""Parameter of the reports on a part of the orders: the conditions that `part_of` makes from a seer."""


def modules() -> Iterator[ModuleType]:
    for path in sorted(Path(finding.__path__[0]).glob("*_sql.py")):
        yield importlib.import_module(f"{finding.__name__}.{path.stem}")
    yield importlib.import_module(f"{order.__name__}.document_sql")


READERS = [
    function
    for module in modules()
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and Connection in get_type_hints(function).values()
]


@pytest.mark.parametrize("function", READERS, ids=lambda function: function.__name__)
def test_a_function_that_reads_orders_takes_a_seer_and_has_no_default_for_it(function: Callable[..., Any]) -> None:
    if function.__name__ in WITHOUT or function.__name__.startswith("_"):
        return  # private ones are called by those that have chosen
    given = inspect.signature(function).parameters.values()
    hints = get_type_hints(function)
    seers = [one for one in given if "Seer" in str(hints[one.name]) or one.name == PART]
    assert seers, f"{function.__name__} reads orders for nobody: give it a seer, or say in WITHOUT why it needs none."
    assert all(one.default is inspect.Parameter.empty for one in seers)


def test_there_are_such_functions_and_no_exception_is_left_over() -> None:
    names = {function.__name__ for function in READERS}
    assert {"read_orders", "list_orders", "count_orders", "read_events", "read_past", "read_sales"} <= names
    assert WITHOUT.keys() <= names
