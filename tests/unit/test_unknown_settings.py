"""A name that looks like a setting and is none is told, with the one that may be meant; nobody else's names are."""

import logging
from pathlib import Path

import pytest

from orders.settings.unknown import tell_unknown, unknown_settings


def test_a_typo_is_told_with_the_nearest_name_and_without_its_value() -> None:
    said = unknown_settings({"ORDERS_LEASES_S": "hunter2"})
    assert said == ["ORDERS_LEASES_S is no setting of this version and does nothing; did you mean ORDERS_LEASE_S?"]
    assert unknown_settings({"ORDERS_ZZZZZZZZ": "1"}) == [
        "ORDERS_ZZZZZZZZ is no setting of this version and does nothing."
    ]


def test_known_names_are_silent_whatever_their_case() -> None:
    assert unknown_settings({"orders_lease_s": "20", "ORDERS_WORKFLOW": "x", "PORT": "1", "DB_NAME": "x"}) == []


@pytest.mark.parametrize(
    "name", ["CATALOGUE_URL", "CATALOG_URI", "CARTS_URL", "DATABASE_URI", "DATABSE_URL", "DB_PASSWD"]
)
def test_a_near_miss_of_another_setting_is_told_where_that_is_not_set(name: str) -> None:
    (said,) = unknown_settings({name: "x"})
    assert said.startswith(f"{name} is no setting and does nothing; ")


@pytest.mark.parametrize(
    "environment",
    [
        {"CATALOGUE_URL": "x", "CATALOG_URL": "http://x", "CART_URL": "http://x"},
        {"DATABASE_URI": "x", "DATABASE_URL": "x"},
        {"DB_NAMES": "x", "DATABASE_URL": "x"},
        {"DATABASE_URLS": "x", "DB_NAME": "x"},
        {"HOSTNAME": "x", "HOSTS": "x", "PORTS": "1", "HOME": "/root", "PATH": "/bin", "CART_PORT": "1"},
    ],
)
def test_nobody_elses_names_are_told(environment: dict[str, str]) -> None:
    assert unknown_settings(environment) == []


def test_what_kubernetes_writes_for_services_of_our_name_is_silent() -> None:
    links = {
        "ORDERS_SERVICE_HOST": "10.0.0.1", "ORDERS_SERVICE_PORT": "8000", "ORDERS_SERVICE_PORT_HTTP": "8000",
        "ORDERS_PORT": "tcp://10.0.0.1:8000", "ORDERS_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "ORDERS_PORT_8000_TCP_ADDR": "10.0.0.1", "ORDERS_DB_PORT_5432_TCP_PROTO": "tcp", "ORDERS_DB_SERVICE_HOST": "x",
    }  # fmt: skip
    assert unknown_settings(links) == []
    assert unknown_settings({"ORDERS_PORT": "8000"}) != []  # a person's


def test_names_in_the_file_are_told_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".env").write_text("ORDERS_QUEUES=7\nexport ORDERS_LEASE_S=20\n")
    monkeypatch.chdir(tmp_path)
    tell_unknown()
    assert [(r.levelno, r.message) for r in caplog.records if "ORDERS_QUEUES" in r.message] == [
        (logging.WARNING, "ORDERS_QUEUES is no setting of this version and does nothing; did you mean ORDERS_QUEUE?")
    ]
    assert "ORDERS_LEASE_S" not in caplog.text
    (tmp_path / ".env").write_bytes(b"ORDERS_\xff=1")
    tell_unknown()  # `load_settings` says that it can't be read
