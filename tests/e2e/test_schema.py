"""The OpenAPI document and the service keep to each other, whatever is sent: searched by schemathesis."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from orders.principal import ALL_SCOPES
from tests.conftest import Sandbox, execute, wait_until
from tests.e2e.conftest import Start
from tests.e2e.test_keys import key_in
from tests.e2e.test_survival import is_quiet, sold
from tests.receiver import SECRET

CONFIG = Path(__file__).parent / "schemathesis.toml"
PLENTY = 10**15
IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
EXAMPLES = ["--max-examples", "300"] if IS_LONG else ["--max-examples", "25", "--generation-deterministic"]


def search(url: str, report: Path, key: str) -> "subprocess.CompletedProcess[str]":
    told = ["--no-color", "--report", "json", "--report-json-path", str(report)]
    run = ["run", f"{url}/openapi.json", *EXAMPLES, *told]
    return subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), *run],
        cwd=CONFIG.parents[2], env={**os.environ, "ORDERS_KEY": key}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def accepted(rates: dict[str, Any]) -> dict[str, int]:
    return {operation: sum(rate["accepted"] for rate in phases.values()) for operation, phases in rates.items()}


def test_schemathesis_finds_nothing_with_all_of_its_checks(
    start: Start, sandbox: Sandbox, dsn: str, tmp_path: Path
) -> None:
    for product in (3, 7):
        sandbox.restock(product, PLENTY)
    sandbox.fill_cart(42, (3, 1))
    # The search makes keys, and revokes every key that it finds: it would soon lock itself out.
    settings = {"orders_secret": SECRET, "orders_webhooks": 1000, "orders_webhook_allow": "127.0.0.1"}
    said = search(start(orders_access="closed", **settings).url, tmp_path / "report.json", key_in(dsn, *ALL_SCOPES))
    assert said.returncode == 0, said.stdout[-20_000:] + said.stderr
    report = json.loads((tmp_path / "report.json").read_text())

    # It has not passed by seeing nothing but refusals.
    successes = accepted(report["valid_rates"])
    assert len(successes) == 44  # all but eight, see the configuration
    assert min(successes.values()) >= 1
    assert min(count for name, count in successes.items() if "/orders" in name) >= 5, successes
    statuses = Counter(status for (status,) in execute(dsn, "SELECT status FROM orders WHERE placed_at IS NOT NULL"))
    assert statuses.total() >= 10, statuses
    assert len(statuses) >= 2, statuses  # some were moved

    wait_until(lambda: is_quiet(dsn), "stock of cancelled orders is back")
    for product in (3, 7):
        assert sandbox.stock(product) == PLENTY - sold(dsn, product)
