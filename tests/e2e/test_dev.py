"""`orders dev`: what it prints is to be copied, and works."""

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ORDERS, Http, Sandbox, execute, free_port, wait_until
from tests.e2e.conftest import Service, stop, usual
from tests.e2e.test_curl_blocks import run


@pytest.fixture
def running() -> Iterator[list[Service]]:
    """Whatever a test starts. It is stopped afterwards."""
    services: list[Service] = []
    yield services
    stop(services)


def start_dev(http: Http, folder: Path, *options: str, **settings: Any) -> tuple[Service, str]:
    """The service, and what it has printed once it listens."""
    port, said = free_port(), folder / "said"
    given = {name.upper(): str(value) for name, value in settings.items()}
    environment = {**os.environ, **given, "ORDERS_DATA_DIR": str(folder / "data"), "PYTHONUNBUFFERED": "1"}
    with said.open("w") as out:
        words = [*ORDERS, "dev", "--port", str(port), *options]
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=subprocess.DEVNULL)
    wait_until(lambda: "Ctrl-C" in said.read_text(), "it listens")
    return Service(http, f"http://127.0.0.1:{port}", process), said.read_text()


def test_closed_it_makes_a_key_once_and_its_curl_works(
    http: Http, sandbox: Sandbox, dsn: str, tmp_path: Path, running: list[Service]
) -> None:
    file, keys = tmp_path / "data" / "dev-key", []
    for n in range(4):
        if n == 2:
            execute(dsn, "UPDATE access_keys SET revoked_at = now() RETURNING 1")
        if n == 3:
            file.write_text("not a key\n")
            file.chmod(0o644)
        service, said = start_dev(http, tmp_path, "--access", "closed", **usual(dsn, sandbox))
        running.append(service)
        (command,) = re.findall(r"^  (curl .*?})\'$", said, re.M | re.S)
        (answer,) = run(f"{command}'", dsn)
        assert answer.status in (201, 400), answer  # 400: the catalog has not got it
        assert service.get("/orders").status == 401
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        keys.append(file.read_text().strip())
        assert f"Authorization: Bearer {keys[-1]}" in said
        stop(running)
        running.clear()
    assert keys[0] == keys[1]  # it is used again, until it was revoked or lost
    assert len(set(keys)) == 3
    assert execute(dsn, "SELECT count(*) FROM access_keys") == [(3,)]


def test_without_a_word_it_makes_none(
    http: Http, sandbox: Sandbox, dsn: str, tmp_path: Path, running: list[Service]
) -> None:
    service, said = start_dev(http, tmp_path, **usual(dsn, sandbox))
    running.append(service)
    assert "Authorization" not in said
    assert service.get("/orders").status == 200
    assert not (tmp_path / "data" / "dev-key").exists()
