"""docs/security.md names the bounds that the code has, each with its number."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from orders.wire import bounded_http, checks, connections, ending

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
NAMED = re.findall(r"^\| .*? \| (.*?) \|.*\| `(orders[\w.]*)\.([A-Z_]+)` \|$", PAGE, re.MULTILINE)


def written(name: str, value: float) -> str:
    if name.endswith("_BYTES") and value < 1024:
        return f"{value} bytes"
    if name.endswith("_BYTES"):
        mib, rest = divmod(value, 1 << 20)
        return f"{value / 1024:g} KiB" if rest else f"{mib:g} MiB"
    return f"{value:g} s" if name.endswith("_S") else f"{value:,}"


@pytest.mark.parametrize(("bound", "module", "name"), NAMED)
def test_each_number_on_the_page_is_the_one_in_the_code(bound: str, module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    assert re.match(rf"{re.escape(written(name, value))}\b", bound), f"{name} is {value}, the page says {bound}"


@pytest.mark.parametrize("module", [connections, bounded_http, ending, checks])
def test_no_bound_is_missing_on_the_page(module: ModuleType) -> None:
    own = re.findall(r"^([A-Z][A-Z_]+) = [\d(]", Path(str(module.__file__)).read_text(), re.MULTILINE)
    assert own
    assert set(own) <= {name for _, of, name in NAMED if of == module.__name__}


def test_the_table_of_connections_is_read() -> None:
    assert len(NAMED) >= 14
