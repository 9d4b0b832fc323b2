"""docs/openapi.json: the OpenAPI document as it was reviewed last. `make openapi` writes it anew.

Examples are left out, and everything is sorted, so that a difference is a change of the API.
"""

import json
from pathlib import Path
from typing import Any

from orders.app import create_app
from orders.settings import Settings

WIDTH = 118
SNAPSHOT = Path(__file__).parents[1] / "docs" / "openapi.json"


def document() -> dict[str, Any]:
    """The document that the service serves, with the built-in statuses."""
    app = create_app(Settings(_env_file=None, catalog_url="http://catalog", cart_url="http://cart"))  # type: ignore[call-arg]
    return dict(json.loads(json.dumps(app.openapi())))


def snapshot(document: Any) -> str:
    """What is kept of it, as text."""
    return _text(_without_examples(document)) + "\n"


def _text(value: Any, indent: str = "") -> str:
    """JSON, with what fits into a line in one line."""
    line = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(indent + line) <= WIDTH:
        return line
    inner = indent + " "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _text(one, inner) for one in value) + f"\n{indent}]"
    members = (f"{inner}{json.dumps(name)}: {_text(one, inner)}" for name, one in sorted(value.items()))
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def _without_examples(document: Any) -> Any:
    if isinstance(document, dict):
        return {
            name: _without_examples(value) for name, value in document.items() if name not in ("example", "examples")
        }
    return [_without_examples(value) for value in document] if isinstance(document, list) else document


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(document()))
