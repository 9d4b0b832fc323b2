"""Mends what FastAPI writes into the OpenAPI document, so that generated clients are good to use."""

from collections.abc import Iterator
from typing import Any

from orders.order.model import MAX_ID

Schema = dict[str, Any]

_LEFT_OUT = ("BatchResult", "OrderList", "PreviewedResult", "Problem", "ProblemError")
"""Answers that leave out an optional member if there is nothing to say. In them it is never null."""

_OPERATIONS = ("get", "put", "post", "patch", "delete")


def suit_generators(document: Schema) -> None:
    """Change the document in place."""
    schemas = document["components"]["schemas"]
    for name in _LEFT_OUT:
        members, always = schemas[name]["properties"], schemas[name]["required"]
        members |= {member: _without_null(schema) for member, schema in members.items() if member not in always}
    for operation in (item[method] for item in document["paths"].values() for method in _OPERATIONS if method in item):
        for parameter in operation.get("parameters", ()):
            _mend_parameter(parameter)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            content["schema"] = _without_null(content["schema"])  # a body may be left out, but is never null
    for schema in _dicts(document):
        _mend(schema)


def _mend_parameter(parameter: Schema) -> None:
    """Remove null, which an address can't say, and a header's default, which clients would send with every request."""
    parameter["schema"] = _without_null(parameter["schema"])
    parameter["schema"].pop("description", None)  # the parameter itself has the description
    if parameter["in"] == "header":
        parameter["schema"].pop("default", None)


def _without_null(schema: Schema) -> Schema:
    choices = schema.get("anyOf", [])
    others = [choice for choice in choices if choice != {"type": "null"}]
    if len(choices) - len(others) != 1 or len(others) != 1:
        return schema
    return {**others[0], **{name: value for name, value in schema.items() if name != "anyOf" and value is not None}}


def _mend(schema: Schema) -> None:
    """Remove titles, which only repeat names and become classes in generators, and make limits integers again."""
    # the document itself has a title and a version
    if isinstance(schema.get("title"), str) and "version" not in schema:
        del schema["title"]
    for limit in ("minimum", "maximum"):
        if isinstance(value := schema.get(limit), float):
            schema[limit] = MAX_ID if value == float(MAX_ID) else int(value)


def _dicts(document: Any) -> Iterator[Schema]:
    """Every object in the document, except those in its examples."""
    if isinstance(document, list):
        for inner in document:
            yield from _dicts(inner)
    if isinstance(document, dict):
        yield document
        for name, inner in document.items():
            if name not in ("example", "examples"):
                yield from _dicts(inner)
