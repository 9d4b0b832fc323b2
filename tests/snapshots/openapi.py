"""docs/openapi.yaml: the OpenAPI document, so that a review sees what changes for clients.

Everything is sorted. Examples and the descriptions of fields are left out; of a problem's examples the codes are kept,
because they say which errors an operation answers.
"""

import json
from typing import Any

import yaml

from orders.app import create_app
from orders.settings import Settings
from tests.snapshots import DOCS

PATH = DOCS / "openapi.yaml"
TITLE = "# The API as it was reviewed last, without examples and descriptions. `make snapshots` writes this file.\n"
WIDTH = 118
PROBLEM = "application/problem+json"

_NOISE = ("example", "examples", "description")
_BY_NAME = ("properties", "schemas", "responses", "headers", "paths")
"""Objects whose members are named by the API, so that a name in there is never noise."""


def document() -> dict[str, Any]:
    """The document that the service serves, with the built-in statuses."""
    app = create_app(Settings(_env_file=None, catalog_url="http://catalog", cart_url="http://cart"))  # type: ignore[call-arg]
    return dict(json.loads(json.dumps(app.openapi())))


def snapshot(document: dict[str, Any]) -> str:
    """What is kept of it, as text."""
    essence = _essence(document)
    return TITLE + yaml.dump(essence, default_flow_style=None, allow_unicode=True, width=WIDTH, Dumper=_Dumper)


class _Dumper(yaml.SafeDumper):
    """Writes what is the same twice: no anchors."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _essence(value: Any, parent: str = "") -> Any:
    if isinstance(value, list):
        return [_essence(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _essence(inner, name) for name, inner in value.items() if parent in _BY_NAME or name not in _NOISE}
    if parent == PROBLEM:
        kept["x-codes"] = sorted(value.get("examples", ()))
    return kept
