"""The schemas of messages, the AsyncAPI document, and the webhooks in the OpenAPI document."""

import json
import os
import shutil
import subprocess
from typing import Any

import jsonschema
import pytest

from orders.events.message_schemas import MESSAGE_EXAMPLE
from orders.events.wanted import KNOWN_TYPES
from tests.e2e.conftest import Service
from tests.e2e.test_contract import problem
from tests.e2e.test_generated_typescript import MODULES, SOURCE


def test_each_type_has_a_schema_that_anybody_may_keep(service: Service) -> None:
    listed = service.get("/schemas")
    assert listed.headers["cache-control"] == "public, max-age=3600"
    assert [one["type"] for one in listed.body["schemas"]] == list(KNOWN_TYPES)
    for one in listed.body["schemas"]:
        reply = service.get(one["url"])
        assert reply.headers["content-type"] == "application/schema+json"
        assert reply.headers["cache-control"] == "public, max-age=3600"
        schema = reply.body
        assert schema["$id"] == one["url"]
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        validator.validate({**MESSAGE_EXAMPLE, "type": one["type"]})
        validator.validate({**MESSAGE_EXAMPLE, "type": one["type"], "a_new_member": 1})
        data = {name: value for name, value in MESSAGE_EXAMPLE["data"].items() if name != "position"}
        for wrong in ({"type": "order.other"}, {"data": data}, {"timestamp": None}):
            assert not validator.is_valid({**MESSAGE_EXAMPLE, "type": one["type"], **wrong})


@pytest.mark.parametrize("path", ["order.sold/1", "order.placed/2", "order.placed/x", "order.placed/01", "placed/1"])
def test_there_is_no_other_schema(service: Service, path: str) -> None:
    problem(service.get(f"/schemas/{path}"), 404, "not_found")


def test_the_parser_of_asyncapi_has_nothing_to_say(service: Service) -> None:
    document = service.get("/asyncapi.json").body
    found = _parse(document)
    assert found == ""
    channels = document["channels"]
    assert {name: channel["address"] for name, channel in channels.items()} == {
        "feed": "/events",
        "stream": "/events/stream",
        "webhook": None,
    }
    names = {document["components"]["messages"][name]["name"] for name in channels["webhook"]["messages"]}
    assert names == set(KNOWN_TYPES)


def test_the_parser_of_asyncapi_would_say_something(service: Service) -> None:
    document = service.get("/asyncapi.json").body
    document["channels"]["feed"]["messages"]["event"]["$ref"] = "#/components/messages/nothing"
    assert "nothing" in _parse(document)


def test_openapi_names_each_type_as_a_webhook(service: Service) -> None:
    document = service.get("/openapi.json").body
    assert document["webhooks"].keys() == set(KNOWN_TYPES)
    members = document["components"]["schemas"]["MessageData"]["properties"]
    assert members.keys() == MESSAGE_EXAMPLE["data"].keys()


def _parse(document: dict[str, Any]) -> str:
    """What the official parser finds wrong. The test is skipped without Node.js or, under CI, fails."""
    if shutil.which("node") is None or not (MODULES / "made").exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Node.js, or what `make test` installs, is missing")
    words = ["node", str(SOURCE / "asyncapi.mjs")]
    done = subprocess.run(words, input=json.dumps(document), capture_output=True, text=True, check=True, timeout=120)
    return done.stdout
