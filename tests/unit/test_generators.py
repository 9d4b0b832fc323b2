"""What the OpenAPI document must hold so that clients which are generated from it are good to use."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orders.app import create_app
from orders.settings import Settings
from tests.snapshots import openapi
from tests.unit.test_documents import operations

NULL = {"type": "null"}
OWN = {
    "Ordered": 'next = ["Cancelled"]',
    "Collected": "final = true",
    "Cancelled": "final = true\ngives_stock_back = true",
}
CUSTOMER_ID = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
ANY_CUSTOMER_ID = {**CUSTOMER_ID, "minimum": -(2**63)}  # adopted orders may have one below 1; they can only be read


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document()


def objects(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        yield document
    for inner in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from objects(inner)


def without_examples(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "examples"}


ANSWERS_OF_THEIR_OWN = ("GET /orders/{id}", "GET /events/stream", "GET /schemas/{type}/{version}")
"""The address of two things, a stream, and any JSON Schema."""


def test_every_operation_has_one_answer_with_a_name(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        good = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        assert len(good) == 1, name
        if operation["operationId"] in ("revoke_key", "delete_webhook"):
            assert "content" not in good[0]  # 204
        elif "exports" not in operation["tags"] and name not in ANSWERS_OF_THEIR_OWN:
            assert good[0]["content"]["application/json"]["schema"].keys() == {"$ref"}, name


def test_no_schema_needs_a_name_that_a_generator_makes_up(document: dict[str, Any]) -> None:
    named = document["components"]["schemas"].values()
    for schema in objects(document):
        if "enum" in schema or ("properties" in schema and "type" in schema):
            assert any(schema is one for one in named), schema


def test_a_customers_id_is_an_integer_everywhere(document: dict[str, Any]) -> None:
    found = 0
    for name, operation in operations(document).items():
        parameters = {p["name"]: without_examples(p["schema"]) for p in operation.get("parameters", ())}
        if "customer_id" in parameters or operation["operationId"] in ("place_order", "preview_place_order"):
            expected = ANY_CUSTOMER_ID if name.startswith("GET ") else CUSTOMER_ID
            assert parameters.get("customer_id", parameters.get("id")) == expected, name
            found += 1
    assert found == 8  # two lists, two exports, and placing and its preview at two addresses each
    members = [schema["properties"] for schema in objects(document) if "customer_id" in schema.get("properties", {})]
    assert {member["customer_id"]["type"] for member in members} == {"integer"}


def test_no_parameter_and_no_body_is_null_and_no_header_has_a_default(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        bodies = operation.get("requestBody", {}).get("content", {}).values()
        for schema in [p["schema"] for p in operation.get("parameters", ())] + [body["schema"] for body in bodies]:
            assert NULL not in schema.get("anyOf", ()), name
        assert not [p for p in operation.get("parameters", ()) if p["in"] == "header" and "default" in p["schema"]]


def test_no_parameter_has_brackets_in_its_name(document: dict[str, Any]) -> None:
    for operation in operations(document).values():
        assert not [p for p in operation.get("parameters", ()) if "[" in p["name"]]


def test_limits_are_the_integers_that_they_are(document: dict[str, Any]) -> None:
    limits = [o[name] for o in objects(document) for name in ("minimum", "maximum") if name in o]
    assert {type(limit) for limit in limits} == {int}
    assert max(limits) == 2**63 - 1
    assert "e+" not in json.dumps(document)


def test_what_may_be_left_out_of_an_answer_is_never_null_but_the_next_page_may_be(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["OrderList"]["properties"]["total_count"]["type"] == "integer"
    assert NULL in schemas["OrderList"]["properties"]["next"]["anyOf"]
    assert NULL in schemas["OrderPatch"]["properties"]["metadata"]["anyOf"]  # which removes it


def test_the_status_of_an_order_and_the_one_to_move_it_to_are_one_type(document: dict[str, Any]) -> None:
    schemas, status = document["components"]["schemas"], {"$ref": "#/components/schemas/Status"}
    for name in ("Order", "PreviewedOrder", "NewStatus", "EntryToMove", "StatusCount"):
        assert schemas[name]["properties"]["status"] == status
    assert "enum" not in schemas["Status"]  # an adopted order may have any


def test_a_shops_own_statuses_are_named(tmp_path: Path) -> None:
    table = tmp_path / "workflow.toml"
    table.write_text(
        'line = ["Ordered", "Collected"]\n' + "".join(f"[statuses.{name}]\n{of}\n" for name, of in OWN.items())
    )
    own = Settings(_env_file=None, catalog_url="http://catalog", cart_url="http://cart", orders_workflow=str(table))  # type: ignore[call-arg]
    named = create_app(own).openapi()["components"]["schemas"]["Status"]["x-extensible-enum"]
    assert {"Ordered", "Collected", "Cancelled"} <= set(named)
    assert "Shipped" not in named
