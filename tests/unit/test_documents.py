"""The documents keep up with the code: OpenAPI is valid and complete, and the README names what there is."""

import difflib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from openapi_spec_validator import validate
from typer.testing import CliRunner

from orders.cli.main import cli
from orders.errors import Code
from orders.finding.query import ListQuery, parse_cursor
from orders.order.statuses import load_workflow, parse_workflow
from orders.settings import Settings
from tests import openapi

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_the_openapi_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_the_openapi_document_is_the_one_that_was_reviewed(document: dict[str, Any]) -> None:
    was, now = openapi.SNAPSHOT.read_text().splitlines(), openapi.snapshot(document).splitlines()
    changed = list(difflib.unified_diff(was, now, "docs/openapi.json", "the service", lineterm="", n=1))
    assert not changed, "The API has changed. If that is meant, run `make openapi`:\n" + "\n".join(changed[:80])


def test_no_two_paths_differ_only_in_a_parameters_name(document: dict[str, Any]) -> None:
    shapes = [re.sub(r"{[^}]*}", "{}", path) for path in document["paths"]]
    assert len(shapes) == len(set(shapes))


def test_all_operations_are_there_under_names_for_generated_clients(document: dict[str, Any]) -> None:
    named = {name: op["operationId"] for name, op in operations(document).items()}
    assert named == {
        "GET /orders": "get_orders",
        "GET /orders/{id}": "get_order",
        "POST /orders/{id}": "place_order",
        "PUT /orders/{id}": "change_order_status",
        "POST /orders/{id}/cancel": "cancel_order",
        "POST /orders/{id}/return": "return_order",
        "GET /orders/{id}/events": "get_order_events",
        "POST /orders:batch": "place_orders",
        "PUT /orders:batch": "change_order_statuses",
        "GET /workflow": "get_workflow",
        "PATCH /orders/{id}": "patch_order",
        "GET /orders.csv": "export_csv",
        "GET /orders.ndjson": "export_ndjson",
        "GET /reports/sales": "report_sales",
        "GET /reports/products": "report_products",
        "GET /reports/statuses": "report_statuses",
        "GET /customers/{customer_id}/orders": "get_customer_orders",
        "POST /customers/{customer_id}/orders": "place_customer_order",
        "POST /dry-run/orders/{id}": "preview_place_order",
        "PUT /dry-run/orders/{id}": "preview_change_order_status",
        "PATCH /dry-run/orders/{id}": "preview_patch_order",
        "POST /dry-run/orders/{id}/cancel": "preview_cancel_order",
        "POST /dry-run/orders/{id}/return": "preview_return_order",
        "POST /dry-run/orders:batch": "preview_place_orders",
        "PUT /dry-run/orders:batch": "preview_change_order_statuses",
        "POST /dry-run/customers/{customer_id}/orders": "preview_place_customer_order",
        "GET /problems": "get_problems",
        "GET /problems/{code}": "get_problem",
        "GET /": "get_about",
        "GET /health": "get_health",
    }


def test_every_error_answer_is_a_problem_with_examples(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                content = response["content"]
                assert list(content) == ["application/problem+json"], (name, status)
                assert content["application/problem+json"]["examples"], (name, status)


def test_every_answer_about_orders_has_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, operation in operations(document).items():
        if "orders" not in operation["tags"] and name != "GET /workflow":
            continue
        answer = next(response for status, response in operation["responses"].items() if status < "3")
        schema = answer["content"]["application/json"]["schema"]
        for one in schema.get("anyOf", [schema]):
            assert "example" in schemas[one["$ref"].split("/")[-1]], name
        if body := operation.get("requestBody"):
            assert "examples" in json.dumps(body) or "examples" in json.dumps(
                [schemas[ref] for ref in re.findall(r"#/components/schemas/(\w+)", json.dumps(body))]
            ), name


def test_placing_documents_every_status_of_the_contract(document: dict[str, Any]) -> None:
    for name in ("POST /orders/{id}", "POST /customers/{customer_id}/orders"):
        assert {"201", "400", "404", "409", "422", "500", "503"} <= operations(document)[name]["responses"].keys()


def test_the_readme_has_a_row_for_every_setting_with_its_default() -> None:
    for name, field in Settings.model_fields.items():
        rows = [line for line in README.splitlines() if line.startswith("|") and f"`{name.upper()}`" in line]
        assert rows, name.upper()
        if field.default is not None:
            assert any(f"`{field.default}`" in row for row in rows), f"{name.upper()}: {field.default}"


def test_the_readme_has_a_row_for_every_error() -> None:
    for code in Code:
        assert re.search(rf"^\| {code.value.status} \|.*`{code.name.lower()}`", README, re.MULTILINE), code


def test_the_diagram_in_the_documents_is_the_one_that_the_service_answers() -> None:
    assert f"```mermaid\n{load_workflow().mermaid()}```" in (ROOT / "docs" / "lifecycle.md").read_text()


def test_the_documented_own_statuses_are_a_table_that_is_accepted() -> None:
    shown = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "lifecycle.md").read_text(), re.DOTALL)
    assert shown is not None
    assert parse_workflow(shown[1]).parse("waiting for payment")


def test_the_readme_names_every_command() -> None:
    said = CliRunner().invoke(cli, ["--help"]).stdout
    commands = re.findall(r"^. (\w+)  ", said, re.MULTILINE)
    known = {
        "dev",
        "serve",
        "sandbox",
        "migrate",
        "worker",
        "show",
        "move",
        "workflow",
        "export",
        "reconcile",
        "doctor",
    }
    assert known == set(commands)
    for command in commands:
        assert f"orders {command}" in README, command


def test_every_direct_dependency_has_its_reason_in_the_readme() -> None:
    direct = (ROOT / "requirements.txt").read_text().split("# What those need.")[0]
    for name in re.findall(r"^([\w-]+)==", direct, re.MULTILINE):
        assert re.search(rf"^\| .*\b{name}\b.*\| \S", README, re.MULTILINE), name


def test_links_between_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_cursor_in_the_example_of_a_list_is_good(document: dict[str, Any]) -> None:
    following = urlsplit(document["components"]["schemas"]["OrderList"]["example"]["next"])
    query = ListQuery.model_validate(dict(parse_qsl(following.query)))
    assert parse_cursor(query.cursor, query.to_filters(load_workflow()), query.to_sort()) is not None
