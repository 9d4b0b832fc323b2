"""Settings say in a sentence what is wrong with them."""

from pathlib import Path

import pytest

from orders.order.statuses import load_workflow
from orders.postgres.connecting import dsn_from_parts
from orders.principal import CustomerMay
from orders.settings import Settings, SettingsError, load_settings
from orders.startup import expiries, require_neighbours


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"CATALOG_URL": "catalog"}, "CATALOG_URL: must begin with http://"),
        ({"PORT": "http"}, "PORT: input should be a valid integer"),
        ({"PORT": "0"}, "PORT: input should be greater than or equal to 1 (it is '0')"),
        ({"ORDERS_LEASE_S": "5"}, "ORDERS_LEASE_S must be longer than ORDERS_REQUEST_DEADLINE_S"),
        ({"ORDERS_LEASE_S": "nan"}, "ORDERS_LEASE_S"),
        ({"ORDERS_WRITE_HORIZON_S": "2"}, "must be longer than ORDERS_NEIGHBOUR_TIMEOUT_S"),
        ({"DATABASE_URL": "postgresql:///x", "DB_NAME": "y"}, "not both"),
        ({"DB_HOST": "db"}, "DB_NAME is missing"),
        (
            {"ORDERS_JWT_ISSUER": "https://login.shop.example/"},
            "ORDERS_JWT_AUDIENCE is missing beside ORDERS_JWT_ISSUER",
        ),
        ({"ORDERS_JWT_ISSUER": "https://a", "ORDERS_JWT_AUDIENCE": ""}, "ORDERS_JWT_AUDIENCE: string should have at"),
        ({"ORDERS_JWT_AUDIENCE": "orders"}, "ORDERS_JWT_ISSUER is missing"),
        ({"ORDERS_JWT_JWKS_URL": "https://login.shop.example/keys"}, "ORDERS_JWT_ISSUER is missing"),
        ({"ORDERS_JWT_ISSUER": "login.shop.example"}, "ORDERS_JWT_ISSUER: must begin with http://"),
        ({"ORDERS_JWT_ISSUER": "https://a:b@login"}, "ORDERS_JWT_ISSUER: must have no user and no password"),
        ({"ORDERS_JWT_ISSUER": "https://login/?a=b"}, "ORDERS_JWT_ISSUER: must have no query"),
        ({"ORDERS_JWT_JWKS_URL": "file:///etc/keys"}, "ORDERS_JWT_JWKS_URL: must begin with http://"),
        ({"ORDERS_JWT_ALGORITHMS": "RS256,HS256"}, "ORDERS_JWT_ALGORITHMS: 'HS256' can't be allowed"),
        ({"ORDERS_JWT_ALGORITHMS": "none"}, "ORDERS_JWT_ALGORITHMS: 'none' can't be allowed"),
        ({"ORDERS_JWT_ALGORITHMS": "rs256"}, "ORDERS_JWT_ALGORITHMS: 'rs256' can't be allowed"),
        ({"ORDERS_JWT_ALGORITHMS": " , "}, "ORDERS_JWT_ALGORITHMS: must name at least one"),
        ({"ORDERS_JWT_CUSTOMER_CLAIM": ""}, "ORDERS_JWT_CUSTOMER_CLAIM: string should have at least 1"),
        ({"ORDERS_CUSTOMER_MAY": "read,return"}, "ORDERS_CUSTOMER_MAY: 'return' is nothing that customers can do"),
        ({"ORDERS_KEY_RETENTION_H": "24"}, "ORDERS_KEY_RETENTION_H: input should be greater than or equal to 72"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(_env_file=None)
    assert sentence in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_bytes("DB_PASSWORD=geheim\xfc".encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == ".env can't be read: it is not UTF-8"


def test_a_password_that_is_no_text_is_told_without_it() -> None:
    with pytest.raises(SettingsError, match="no text") as caught:
        dsn_from_parts("shop", "ann", "geheim\udcff", None, None)
    assert "geheim" not in str(caught.value)


def test_a_missing_neighbour_is_named() -> None:
    with pytest.raises(SettingsError, match="CART_URL: not set"):
        require_neighbours(load_settings(_env_file=None, catalog_url="http://catalog"))


def test_a_status_that_expires_twice_is_named_however_it_is_written() -> None:
    settings = load_settings(_env_file=None, orders_expire="Ordered:5m, on_hold:1d, ordered:6m")
    with pytest.raises(SettingsError, match="ORDERS_EXPIRE: Ordered is there twice"):
        expiries(settings, load_workflow())


def test_settings_of_tokens_are_read() -> None:
    given = {
        "orders_jwt_issuer": " https://login.shop.example/ ",
        "orders_jwt_audience": "orders",
        "orders_jwt_jwks_url": "https://orders:geheim@login.shop.example/keys?p=policy",
        "orders_jwt_algorithms": "PS256, EdDSA",
        "orders_customer_may": "read, cancel",
    }
    settings = load_settings(_env_file=None, **given)
    assert settings.orders_jwt_issuer == "https://login.shop.example/"
    assert settings.token_algorithms == {"PS256", "EdDSA"}
    assert settings.customer_may == {CustomerMay.READ, CustomerMay.CANCEL}
    assert "geheim" not in repr(settings)
    assert load_settings(_env_file=None, orders_customer_may="").customer_may == frozenset()
    assert load_settings(_env_file=None).customer_may == frozenset(CustomerMay)
    assert load_settings(_env_file=None).token_algorithms == {"RS256", "ES256", "EdDSA"}
