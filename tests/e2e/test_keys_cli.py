"""`orders keys`: the way in, on the database itself, also while no service runs."""

import os
import pwd
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orders.access.keys import id_of, is_key, make_key
from orders.access.keys_sql import AccessKey, find_key
from orders.postgres.database import opened
from orders.principal import ALL_SCOPES
from tests.conftest import ORDERS, execute, wait_until
from tests.e2e.conftest import Start

Ran = subprocess.CompletedProcess[str]
Run = Callable[..., Ran]
CLI = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


def run_keys(*words: str, **settings: Any) -> Ran:
    given = {name.upper(): str(value) for name, value in settings.items()}
    words = (*ORDERS, "keys", *words)
    return subprocess.run(words, env={**os.environ, **given}, capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture
def keys(dsn: str) -> Run:
    """`keys("list")` runs `orders keys list`. It needs no neighbours, and no service."""
    return lambda *words: run_keys(*words, database_url=dsn)


def row(dsn: str, key: str) -> AccessKey:
    with opened(dsn) as connection:
        found = find_key(connection, id_of(key))
    assert found
    return found


def test_a_key_is_printed_once_and_can_be_kept_by_a_script(keys: Run, dsn: str) -> None:
    made = keys("create", "--name", "shop", "--as", "storefront", "--scope", "reports:read", "--channel", "web",
                "--expires", "90d", "--rate", "50")  # fmt: skip
    assert made.returncode == 0, made.stderr
    key = made.stdout.rstrip("\n")
    assert is_key(key)
    assert id_of(key) in made.stderr
    assert "orders:read orders:place reports:read (channel web), 50 per second" in made.stderr
    assert key not in made.stderr
    found = row(dsn, key)
    assert (found.name, found.channel, found.rate, found.created_by) == ("shop", "web", 50, CLI)
    assert found.scopes == ["orders:read", "orders:place", "reports:read"]
    assert found.expires_at
    assert abs(found.expires_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=2)
    (audited,) = execute(dsn, "SELECT actor, action, address FROM audit WHERE subject = %s", (id_of(key),))
    assert audited == (CLI, "key_created", None)


def test_a_key_is_listed_rotated_and_revoked(keys: Run, dsn: str) -> None:
    assert "There is no key" in keys("list").stderr
    old = keys("create", "--name", "job", "--scope", "ops", "--scope", "events:read").stdout.strip()
    rotated = keys("rotate", id_of(old), "--keep-old-for", "2h")
    new = rotated.stdout.strip()
    assert rotated.returncode == 0, rotated.stderr
    assert is_key(new)
    assert f"{id_of(old)} ends in 2h" in rotated.stderr
    assert row(dsn, old).replaced_by == id_of(new)
    assert row(dsn, new).scopes == row(dsn, old).scopes == ["events:read", "ops"]
    for _ in range(2):  # safe to repeat
        assert keys("revoke", id_of(old)).returncode == 0
    listed = keys("list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [id_of(new), id_of(old)]
    assert "lasts until it is revoked  may events:read ops  never used" in listed[0]
    assert "revoked at 2" in listed[1]
    assert not any(key[13:] in line for key in (old, new) for line in listed)
    for refused, why in (
        (keys("rotate", id_of(old)), "replaced by the key"),
        (keys("rotate", id_of(make_key())), "There is no key"),
        (keys("revoke", id_of(make_key())), "There is no key"),
    ):
        assert refused.returncode == 1
        assert why in refused.stderr
        assert refused.stdout == ""


def test_it_is_the_way_into_a_closed_service(keys: Run, start: Start) -> None:
    service = start(orders_access="closed")
    assert service.get("/orders").status == 401
    key = keys("create", "--name", "me", "--as", "admin").stdout.strip()
    assert service.get("/keys", headers={"Authorization": f"Bearer {key}"}).status == 200
    assert keys("revoke", id_of(key)).returncode == 0
    wait_until(
        lambda: service.get("/keys", headers={"Authorization": f"Bearer {key}"}).status == 401,
        "it is seen",
        within_s=20,
    )


def test_without_a_database_named_it_is_the_embedded_one(place: Path) -> None:
    data = {"orders_data_dir": place / "data"}
    key = run_keys("create", "--name", "first", "--as", "admin", **data).stdout.strip()
    assert is_key(key)
    listed = run_keys("list", **data)
    assert listed.stdout.startswith(f"{id_of(key)}  first  ")
    for scope in ALL_SCOPES:
        assert scope in listed.stdout
