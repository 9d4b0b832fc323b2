"""The settings of webhooks, and the secret that `orders dev` keeps."""

import stat
from pathlib import Path

import pytest

from orders.cli.dev_secret import kept_secret
from orders.settings import Settings
from orders.settings.webhooks import RETRIES, allowed, pauses_s, retries


def test_the_usual_pauses_are_those_of_standard_webhooks() -> None:
    assert pauses_s(retries(RETRIES)) == (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert pauses_s("0s, 2d") == (0, 172800)


@pytest.mark.parametrize("text", ["", ",", "5", "5x", "-1s", "1.5s", "s", "0s;5s", ",".join(["1s"] * 101)])
def test_pauses_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be like 0s,5s"):
        retries(text)


@pytest.mark.parametrize("text", ["", "127.0.0.1", "10.1.0.0/16,hooks.internal", "::1,fd00::/8", "a_b, localhost"])
def test_networks_and_names_can_be_allowed(text: str) -> None:
    assert allowed(text) == text


@pytest.mark.parametrize("text", ["10.1.0.1/16", "10.0.0.0/33", "http://a/", "a b", "*.internal", "1.2.3.4/x", "a/8"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        allowed(text)


def test_settings_know_them() -> None:
    settings = Settings(_env_file=None, orders_webhook_allow="10.1.0.0/16, localhost")  # type: ignore[call-arg]
    assert settings.webhook_targets == ("10.1.0.0/16", "localhost")
    assert settings.webhook_pauses_s[:2] == (0.0, 5.0)
    assert settings.orders_secret is None


def test_the_secret_of_dev_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    secret = kept_secret(folder)
    assert len(secret) >= 32
    assert kept_secret(folder) == secret
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    assert kept_secret(tmp_path) != secret
