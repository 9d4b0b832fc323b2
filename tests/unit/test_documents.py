"""The documents keep up with the code: OpenAPI is valid and complete, and the pages name what there is."""

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
from orders.wire.operations import OPERATIONS
from tests import docs_tables
from tests.docs_site import without_links_outside
from tests.snapshots import openapi

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.glob("**/*.md")]


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
        "GET /events": "get_events",
        "GET /events/head": "get_events_head",
        "GET /events/stream": "stream_events",
        "GET /schemas": "get_schemas",
        "GET /schemas/{type}/{version}": "get_schema",
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
        "POST /keys": "create_key",
        "GET /keys": "list_keys",
        "POST /keys/{id}/rotate": "rotate_key",
        "DELETE /keys/{id}": "revoke_key",
        "GET /audit": "list_audit",
        "POST /webhooks": "create_webhook",
        "GET /webhooks": "list_webhooks",
        "GET /webhooks/{id}": "get_webhook",
        "PATCH /webhooks/{id}": "patch_webhook",
        "DELETE /webhooks/{id}": "delete_webhook",
        "POST /webhooks/{id}/rotate": "rotate_webhook_secret",
        "POST /webhooks/{id}/test": "test_webhook",
        "POST /webhooks/{id}/replay": "replay_webhook",
        "POST /dry-run/webhooks/{id}/replay": "preview_replay_webhook",
        "GET /webhooks/{id}/deliveries": "list_deliveries",
        "GET /webhook-deliveries/{id}": "get_delivery",
        "POST /webhook-deliveries/{id}/redeliver": "redeliver",
        "GET /problems": "get_problems",
        "GET /problems/{code}": "get_problem",
        "GET /": "get_about",
        "GET /health": "get_health",
    }


def test_every_error_answer_is_a_problem_with_examples(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                shared = document["components"]["responses"].get(response.get("$ref", "").rsplit("/")[-1], {})
                content = (shared or response)["content"]
                assert list(content) == ["application/problem+json"], (name, status)
                assert content["application/problem+json"]["examples"], (name, status)


def test_an_operation_with_a_scope_names_it_and_its_refusals_and_no_other_does(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["security"] == []
    for name, operation in operations(document).items():
        scope = OPERATIONS[operation["operationId"]].scope
        refusals = {"401", "403", "429"} & operation["responses"].keys()
        if scope is None:
            assert ("security" in operation, refusals) == (False, set()), name
        else:
            assert operation["security"] == [{"bearer": [scope]}], name
            assert f"`{scope}`" in operation["description"], name
            assert refusals == {"401", "403", "429"}, name


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


@pytest.mark.parametrize("page", docs_tables.TABLES)
def test_the_tables_of_errors_settings_and_commands_are_those_of_the_code(page: str) -> None:
    text = (DOCS / page).read_text()
    changed = list(
        difflib.unified_diff(text.splitlines(), docs_tables.renewed(page, text).splitlines(), lineterm="", n=0)
    )
    assert not changed, f"docs/{page} is out of date. Run `make docs-tables`:\n" + "\n".join(changed[:40])


def test_a_table_of_the_documents_has_a_row_for_every_setting_with_its_default() -> None:
    table = docs_tables.settings()
    for name, field in Settings.model_fields.items():
        (row,) = (line for line in table.splitlines() if line.startswith(f"| `{name.upper()}` |"))
        assert row.split(" | ")[1].strip(), f"{name} has no description"
        assert field.default is None or f"`{field.default}`" in row, row


def test_a_table_of_the_documents_has_a_row_for_every_error() -> None:
    table = docs_tables.errors()
    for code in Code:
        assert re.search(rf"^\| {code.value.status} \| `{code.name.lower()}` \|", table, re.MULTILINE), code


def test_the_diagram_in_the_documents_is_the_one_that_the_service_answers() -> None:
    assert f"```mermaid\n{load_workflow().mermaid()}```" in (ROOT / "docs" / "lifecycle.md").read_text()


def test_the_documented_own_statuses_are_a_table_that_is_accepted() -> None:
    shown = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "lifecycle.md").read_text(), re.DOTALL)
    assert shown is not None
    assert parse_workflow(shown[1]).parse("waiting for payment")


def test_the_documents_name_every_command() -> None:
    said = CliRunner().invoke(cli, ["--help"]).stdout
    commands = re.findall(r"^. (\w+)  ", said, re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        assert re.search(rf"^### orders {command}\b", docs_tables.commands(), re.MULTILINE), command


def test_the_documents_name_every_operation(document: dict[str, Any]) -> None:
    named = re.findall(r"^\| `(.*?)` \|", (DOCS / "api.md").read_text(), re.MULTILINE)
    shapes = {re.sub(r"{[^}]*}", "{}", name) for name in named}
    for name in operations(document):
        assert re.sub(r"{[^}]*}", "{}", name) in shapes or " /dry-run/" in name, name


def test_every_direct_dependency_has_its_reason_in_the_documents() -> None:
    direct = (ROOT / "requirements.txt").read_text().split("# What those need.")[0]
    reasons = (DOCS / "dependencies.md").read_text()
    for name in re.findall(r"^([\w-]+)==", direct, re.MULTILINE):
        assert re.search(rf"^\| .*\b{name}\b.*\| \S", reasons, re.MULTILINE), name


def test_links_between_the_documents_lead_somewhere() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(linked.read_text()), f"{page.name}: {target}#{anchor}"


def anchors(text: str) -> set[str]:
    """The names that a page's headings have in links, as forges and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_every_page_of_the_documents_is_in_the_sites_navigation() -> None:
    pages = sorted(str(page.relative_to(DOCS)) for page in DOCS.glob("**/*.md"))
    assert (
        sorted(re.findall(r"^ +- (?:[^:\n]*: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)) == pages
    )


def test_a_page_of_the_site_has_no_links_to_files_outside_of_it() -> None:
    text = "[a](../src/orders/a.py), [b](b.md#c), [d](https://example.org), ![e](e.png)"
    assert without_links_outside(text, "page.md") == text.replace("[a](../src/orders/a.py)", "a")
    assert without_links_outside("[up](../lists.md)", "adr/page.md") == "[up](../lists.md)"


def test_the_index_of_decisions_has_each_with_its_date_and_status() -> None:
    rows = []
    for page in sorted((DOCS / "adr").glob("0*.md")):
        text = " ".join(page.read_text().split())
        said = re.match(r"# (\d+)\. (.*?) Status: (accepted|superseded), (\d{4}-\d\d-\d\d)(.*?)\. \*\*Context", text)
        assert said is not None, f"{page.name}: the title and the status are as in template.md"
        number, title, status, date, more = said.groups()
        assert int(number) == int(page.name[:4]), page.name
        rows.append(f"| {number} | [{title}]({page.name}) | {date} | {status}{more} |")
    index = (DOCS / "adr" / "README.md").read_text()
    assert [line for line in index.splitlines() if re.match(r"\| \d", line)] == rows


def test_every_decision_has_the_parts_of_the_template() -> None:
    parts = re.findall(r"^\*\*.*?\*\*", (DOCS / "adr" / "template.md").read_text(), re.MULTILINE)
    assert len(parts) == 5
    for page in (DOCS / "adr").glob("0*.md"):
        for part in parts:
            assert part in page.read_text(), f"{page.name}: {part}"


def test_the_cursor_in_the_example_of_a_list_is_good(document: dict[str, Any]) -> None:
    following = urlsplit(document["components"]["schemas"]["OrderList"]["example"]["next"])
    query = ListQuery.model_validate(dict(parse_qsl(following.query)))
    assert parse_cursor(query.cursor, query.to_filters(load_workflow()), query.to_sort()) is not None
