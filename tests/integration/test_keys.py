"""The table of API keys, on real servers: what is made, rotated and revoked, and what is written down of it."""

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest

from orders.access.granting import Caller, Grant
from orders.access.keys import id_of, is_key, make_key
from orders.access.keys_sql import (
    AccessKey,
    any_exist,
    create_key,
    find_key,
    find_usable,
    list_keys,
    revoke_key,
    rotate_key,
    touch_used,
)
from orders.errors import Code, OrderError
from orders.order.audit_sql import AuditEntry, add_audit
from orders.postgres.database import Connection, connect, transaction, with_defaults
from orders.principal import Scope
from tests.conftest import ask

ANNA = Caller("local/anna", "192.0.2.7", "request-1")
SHOP = Grant("shop", frozenset({Scope.ORDERS_PLACE, Scope.ORDERS_READ}), channel="web", rate=50)


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(with_defaults(dsn))) as connection:
        yield connection


def audited(connection: Connection, key_id: str) -> list[dict[str, Any]]:
    found = ask(
        connection,
        """SELECT jsonb_build_object('actor', actor, 'address', host(address), 'action', action, 'before', before,
                                     'after', after, 'request', request_id)
           FROM audit WHERE subject = %s ORDER BY id""",
        (key_id,),
    )
    return [row for (row,) in found]


def soon(connection: Connection, key_id: str) -> None:
    """As if the key's expiry had come."""
    ask(connection, "UPDATE access_keys SET expires_at = now() - interval '1 s' WHERE id = %s", (key_id,))


def test_a_key_is_made_found_and_listed(connection: Connection) -> None:
    assert not any_exist(connection)
    text, key = create_key(connection, SHOP, ANNA)
    assert is_key(text)
    assert id_of(text) == key.id
    assert key == find_key(connection, key.id) == list_keys(connection, None)[0]
    assert (key.name, key.scopes, key.channel, key.rate) == ("shop", ["orders:read", "orders:place"], "web", 50)
    assert (key.created_by, key.used_at, key.expires_at) == ("local/anna", None, None)
    assert datetime.now(UTC) - key.created_at < timedelta(minutes=5)
    (usable,) = find_usable(connection, [key.id, id_of(make_key()), "nothing"])
    assert (usable.id, usable.family, usable.expires_in_s) == (key.id, key.id, None)
    assert any_exist(connection)
    assert list_keys(connection, "pos") == []
    assert find_key(connection, "nothing") is None


def test_no_secret_is_in_the_database(connection: Connection, dsn: str) -> None:
    text, key = create_key(connection, SHOP, ANNA)
    rotated = rotate_key(connection, key.id, timedelta(hours=1), ANNA)
    assert rotated
    for secret in (text, rotated[0]):
        for part in (secret, secret[13:], secret[13:56]):
            for table in ("access_keys", "audit"):
                assert ask(connection, f"SELECT count(*) FROM {table} t WHERE t::text LIKE %s", (f"%{part}%",)) == [
                    (0,)
                ]


def test_what_is_done_to_a_key_is_in_the_audit(connection: Connection) -> None:
    _, key = create_key(connection, SHOP, ANNA)
    rotated = rotate_key(connection, key.id, timedelta(hours=24), Caller("cli"))
    assert rotated
    assert revoke_key(connection, key.id, ANNA)
    assert revoke_key(connection, key.id, ANNA)  # again: nothing is done, and nothing is written down
    created, replaced, revoked = audited(connection, key.id)
    assert created == {
        "actor": "local/anna", "address": "192.0.2.7", "action": "key_created", "request": "request-1", "before": None,
        "after": {
            "name": "shop", "scopes": ["orders:read", "orders:place"], "channel": "web", "rate": 50, "expires_at": None
        },
    }  # fmt: skip
    assert (replaced["action"], replaced["actor"], replaced["address"]) == ("key_rotated", "cli", None)
    assert replaced["before"] == {"expires_at": None, "replaced_by": None}
    assert replaced["after"]["replaced_by"] == rotated[1].id
    assert datetime.fromisoformat(replaced["after"]["expires_at"]) > datetime.now(UTC) + timedelta(hours=23)
    assert revoked["action"] == "key_revoked"
    assert revoked["after"]["revoked_at"]


def test_what_is_undone_leaves_nothing_in_the_audit(connection: Connection) -> None:
    entry = AuditEntry("cli", "key_created", "undone", None, {"name": "x"})

    def add_and_fail() -> None:
        with transaction(connection) as cursor:
            add_audit(cursor, entry)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        add_and_fail()
    assert audited(connection, "undone") == []


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"])
def test_the_audit_can_not_be_changed(connection: Connection, statement: str) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation, match="only ever added to"):
        ask(connection, statement)


def test_a_rotated_key_goes_on_for_a_while_beside_the_new_one(connection: Connection) -> None:
    _, old = create_key(connection, SHOP, ANNA)
    rotated = rotate_key(connection, old.id, timedelta(hours=24), ANNA)
    assert rotated
    text, new = rotated
    assert id_of(text) == new.id != old.id
    assert (new.name, new.scopes, new.channel, new.rate) == (old.name, old.scopes, old.channel, old.rate)
    assert new.expires_at is None
    usable = {key.id: key for key in find_usable(connection, [old.id, new.id])}
    assert {key.family for key in usable.values()} == {old.id}  # one principal
    assert 86_000 < (usable[old.id].expires_in_s or 0) <= 86_400
    assert usable[new.id].expires_in_s is None
    changed = find_key(connection, old.id)
    assert changed
    assert changed.replaced_by == new.id
    again = rotate_key(connection, new.id, timedelta(), ANNA)
    assert again
    (last,) = find_usable(connection, [new.id, again[1].id])  # nothing was to be kept
    assert (last.id, last.family) == (again[1].id, old.id)


def test_a_new_key_lasts_as_long_as_the_old_one_did_and_no_expiry_is_put_off(connection: Connection) -> None:
    expires_at = datetime.now(UTC) + timedelta(hours=2)
    _, old = create_key(connection, Grant("job", frozenset({Scope.OPS}), expires_at=expires_at), ANNA)
    ask(connection, "UPDATE access_keys SET created_at = created_at - interval '10 h' WHERE id = %s", (old.id,))
    rotated = rotate_key(connection, old.id, timedelta(hours=24), ANNA)
    assert rotated
    assert rotated[1].expires_at
    assert abs(rotated[1].expires_at - rotated[1].created_at - timedelta(hours=12)) < timedelta(minutes=1)
    changed = find_key(connection, old.id)
    assert changed
    assert changed.expires_at == expires_at


@pytest.mark.parametrize("how", ["replaced", "revoked", "expired"])
def test_a_key_that_has_ended_is_not_rotated(connection: Connection, how: str) -> None:
    _, key = create_key(connection, SHOP, ANNA)
    replaced_by = None
    if how == "replaced":
        rotated = rotate_key(connection, key.id, timedelta(hours=1), ANNA)
        assert rotated
        replaced_by = rotated[1].id
    elif how == "revoked":
        revoke_key(connection, key.id, ANNA)
    else:
        soon(connection, key.id)
    before = len(list_keys(connection, None))
    with pytest.raises(OrderError, match=how) as refused:
        rotate_key(connection, key.id, timedelta(hours=1), ANNA)
    assert refused.value.code is Code.KEY_ENDED
    assert refused.value.extra.get("replaced_by") == replaced_by
    assert len(list_keys(connection, None)) == before


def test_of_two_who_rotate_a_key_at_once_one_is_told_of_the_others(connection: Connection, dsn: str) -> None:
    for _ in range(5):
        _, key = create_key(connection, SHOP, ANNA)
        outcomes: list[AccessKey | OrderError] = []

        def rotate(key_id: str = key.id, outcomes: list[AccessKey | OrderError] = outcomes) -> None:
            with contextlib.closing(connect(with_defaults(dsn))) as own:
                try:
                    rotated = rotate_key(own, key_id, timedelta(hours=1), ANNA)
                    assert rotated
                    outcomes.append(rotated[1])
                except OrderError as error:
                    outcomes.append(error)

        threads = [threading.Thread(target=rotate) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (new,) = [one for one in outcomes if isinstance(one, AccessKey)]
        refused = [one for one in outcomes if isinstance(one, OrderError)]
        assert [one.extra["replaced_by"] for one in refused] == [new.id] * 3


def test_revoked_and_expired_keys_are_not_usable_and_stay(connection: Connection) -> None:
    _, revoked = create_key(connection, SHOP, ANNA)
    _, expired = create_key(connection, SHOP, ANNA)
    assert revoke_key(connection, revoked.id, ANNA)
    soon(connection, expired.id)
    assert find_usable(connection, [revoked.id, expired.id]) == []
    assert {key.id for key in list_keys(connection, "web")} == {revoked.id, expired.id}
    assert any_exist(connection)
    assert not revoke_key(connection, "00000000", ANNA)
    assert rotate_key(connection, "00000000", timedelta(), ANNA) is None


def used_at(connection: Connection, key_id: str) -> Any:
    key = find_key(connection, key_id)
    assert key
    return key.used_at


def test_a_use_is_written_once_a_minute(connection: Connection) -> None:
    ids = [create_key(connection, SHOP, ANNA)[1].id for _ in range(3)]
    touch_used(connection, [*ids[:2], "nothing"])
    first = used_at(connection, ids[0])
    assert first
    assert used_at(connection, ids[1]) == first
    assert used_at(connection, ids[2]) is None
    touch_used(connection, ids)
    assert used_at(connection, ids[0]) == first
    ask(connection, "UPDATE access_keys SET used_at = used_at - interval '61 s' WHERE id = %s", (ids[0],))
    touch_used(connection, ids)
    assert used_at(connection, ids[0]) >= first
    assert used_at(connection, ids[1]) == first


def test_a_use_does_not_wait_for_whoever_changes_the_key(connection: Connection, dsn: str) -> None:
    ids = [create_key(connection, SHOP, ANNA)[1].id for _ in range(2)]
    with contextlib.closing(connect(with_defaults(dsn))) as other, transaction(other) as cursor:
        cursor.execute("SELECT FROM access_keys WHERE id = %s FOR UPDATE", (ids[0],))
        touch_used(connection, ids)
    assert used_at(connection, ids[0]) is None
    assert used_at(connection, ids[1])


def test_lists_name_the_newest_first(connection: Connection) -> None:
    names = [create_key(connection, Grant(f"key {n}", frozenset({Scope.OPS})), ANNA)[1].name for n in range(5)]
    assert [key.name for key in list_keys(connection, None)] == names[::-1]


def test_the_looking_up_reads_an_index(connection: Connection) -> None:
    ask(
        connection,
        """INSERT INTO access_keys (id, family, name, digest, scopes, created_by)
           SELECT lpad(n::text, 8, '0'), 'x', 'many', sha256(n::text::bytea), '{ops}', 'x'
           FROM generate_series(1, 20000) n""",
    )
    ask(connection, "ANALYZE access_keys")
    (plan,) = ask(
        connection, "EXPLAIN (FORMAT json) SELECT name FROM access_keys WHERE id = ANY(%s)", (["00000001"] * 200,)
    )
    assert "access_keys_pkey" in json.dumps(plan)
