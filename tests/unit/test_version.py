"""The version stands in three places; `scripts/release.sh` writes it there."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from orders import version
from tests.snapshots import DOCS, openapi

ROOT = DOCS.parent
ORDERS = Path(sys.executable).with_name("orders")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_installed_service_says_the_version_of_the_checkout() -> None:
    assert version.VERSION == VERSION, "run `make install`"
    said = subprocess.run([ORDERS, "--version"], check=True, capture_output=True, text=True).stdout
    assert said == f"orders {VERSION}\n"


def test_a_service_that_is_not_installed_says_the_same() -> None:
    places = [text for path in (ROOT / "src").rglob("*.py") if "VERSION" in (text := path.read_text())]
    assert [re.findall(r'^ +VERSION = "(.*)"$', text, re.MULTILINE) for text in places].count([VERSION]) == 1


def test_the_document_for_clients_has_the_version() -> None:
    assert openapi.document()["info"]["version"] == VERSION
    assert yaml.safe_load(openapi.PATH.read_text())["info"]["version"] == VERSION
