"""What FastAPI writes into the OpenAPI document, mended so that clients which are generated from it are good to use."""

from collections.abc import Iterator
from typing import Any

from orders.order.model import MAX_ID

Schema = dict[str, Any]

_LEFT_OUT = ("BatchResult", "OrderList", "PreviewedResult", "Problem", "ProblemError")
"""Answers whose optional members are left out where there is nothing to say, and never null."""

_OPERATIONS = ("get", "put", "post", "patch")


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
            content["schema"] = _without_null(content["schema"])  # a body that is left out is not null
    for schema in _dicts(document):
        _mend(schema)


def _mend_parameter(parameter: Schema) -> None:
    """An address can't say null; and the default of a header would be sent with every request."""
    parameter["schema"] = _without_null(parameter["schema"])
    parameter["schema"].pop("description", None)  # the parameter has it
    if parameter["in"] == "header":
        parameter["schema"].pop("default", None)


def _without_null(schema: Schema) -> Schema:
    choices = schema.get("anyOf", [])
    others = [choice for choice in choices if choice != {"type": "null"}]
    if len(choices) - len(others) != 1 or len(others) != 1:
        return schema
    return {**others[0], **{name: value for name, value in schema.items() if name != "anyOf" and value is not None}}


def _mend(schema: Schema) -> None:
    """Titles only repeat names, and generators make classes of them; limits are integers, which FastAPI rounds."""
    if isinstance(schema.get("title"), str) and "version" not in schema:  # the document itself has both
        del schema["title"]
    for limit in ("minimum", "maximum"):
        if isinstance(value := schema.get(limit), float):
            schema[limit] = MAX_ID if value == float(MAX_ID) else int(value)


def _dicts(document: Any) -> Iterator[Schema]:
    """Every object in the document, but what is in its examples."""
    if isinstance(document, list):
        for inner in document:
            yield from _dicts(inner)
    if isinstance(document, dict):
        yield document
        for name, inner in document.items():
            if name not in ("example", "examples"):
                yield from _dicts(inner)
