"""A client that @hey-api/openapi-ts makes of /openapi.json is type-checked, and does all of typescript/journey.ts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orders.principal import PRESETS, Scope
from tests.conftest import Sandbox, wait_until
from tests.e2e.conftest import Start
from tests.e2e.test_keys import key_in

CUSTOMER = 70_000_001
SOURCE = Path(__file__).parent / "typescript"
MODULES = SOURCE / "node_modules"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the program; what it needs of npm is what `make test` has installed."""
    if shutil.which("node") is None or not (MODULES / "made").exists():
        missing = "Node.js, or what `make test` installs with npm, is missing"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    for name in ("journey.ts", "tsconfig.json", "package.json"):
        shutil.copy(SOURCE / name, tmp_path)
    return tmp_path


def node(project: Path, *arguments: str) -> None:
    done = subprocess.run(["node", *arguments], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-10_000:]


def test_a_typescript_client_places_finds_changes_and_previews_orders(
    project: Path, start: Start, sandbox: Sandbox, dsn: str
) -> None:
    service, product = start(orders_access="closed"), sandbox.product(10)
    key = key_in(dsn, *PRESETS["integration"], Scope.REPORTS_READ)
    sandbox.fill_cart(CUSTOMER, (product, 2))
    generator, compiler = MODULES / "@hey-api/openapi-ts/bin/run.js", MODULES / "typescript/bin/tsc"
    node(project, str(generator), "-i", f"{service.url}/openapi.json", "-o", "client", "--no-log-file")
    node(project, str(compiler), "--typeRoots", str(MODULES / "@types"))
    node(project, "built/journey.js", service.url, str(CUSTOMER), str(product), key)
    # Of 3 ordered units one was cancelled, one came back damaged and one whole; 2 were in the cart; 1 was cancelled.
    wait_until(lambda: sandbox.stock(product) == 10 - 1 - 2, "the stock is what is left")
