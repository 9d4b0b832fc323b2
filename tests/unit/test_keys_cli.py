"""What `orders keys` refuses."""

import re

import pytest
from typer.testing import CliRunner

from orders.cli import keys
from orders.cli.main import cli


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["create", "--name", "x"], "Say what it may do: --as storefront"),
        (["create", "--name", "x/y", "--as", "admin"], "--name"),
        (["create", "--name", "", "--as", "admin"], "--name"),
        (["create", "--as", "admin"], "--name"),
        (["create", "--name", "x", "--as", "king"], "king"),
        (["create", "--name", "x", "--scope", "orders:destroy"], "orders:destroy"),
        (["create", "--name", "x", "--as", "admin", "--channel", "Web"], "--channel"),
        (["create", "--name", "x", "--as", "admin", "--expires", "soon"], "--expires"),
        (["create", "--name", "x", "--as", "admin", "--expires", "0"], "--expires"),
        (["create", "--name", "x", "--as", "admin", "--expires", "36501d"], "--expires"),
        (["create", "--name", "x", "--as", "admin", "--rate", "0"], "rate"),
        (["rotate", "short"], "is no key's ID"),
        (["rotate", "k3V9aQ2m", "--keep-old-for", "2 hours"], "--keep-old-for"),
        (["revoke", "k3V9aQ2m; DROP TABLE access_keys"], "is no key's ID"),
    ],
)
def test_what_makes_no_sense_is_told_before_the_database_is_opened(
    monkeypatch: pytest.MonkeyPatch, words: list[str], why: str
) -> None:
    monkeypatch.setattr(keys, "open_database", lambda settings: pytest.fail("it was opened"))
    said = CliRunner().invoke(cli, ["keys", *words])
    assert said.exit_code == 2
    assert why in re.sub(r"\x1b\[[0-9;]*m", "", said.stderr)
    assert said.stdout == ""
