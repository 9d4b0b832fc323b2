"""API keys over HTTP, with two replicas: made, used, rotated, revoked; and whatever else may stand in Authorization."""

import contextlib
import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orders.access.granting import Caller, Grant, Preset, scopes_of
from orders.access.keys import checksum, id_of, make_key
from orders.access.keys_sql import create_key
from orders.postgres.database import opened
from orders.principal import ALL_SCOPES, Scope
from tests.conftest import Http, Reply, Sandbox, execute, free_port, migrated, wait_until
from tests.e2e.conftest import Service, Start, listening, start_service, stop, usual
from tests.e2e.test_contract import problem
from tests.servers import EMBEDDED, Cluster

_names = (f"key {n}" for n in itertools.count())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def key_in(dsn: str, *scopes: Scope, lasts: timedelta | None = None, channel: str | None = None) -> str:
    """A key, made as the command line makes one."""
    grant = Grant(next(_names), frozenset(scopes), channel, None, lasts and datetime.now(UTC) + lasts)
    with opened(dsn) as connection:
        return create_key(connection, grant, Caller("cli"))[0]


@dataclass
class Shop:
    """Two replicas of one database, which has an admin's key."""

    here: Service
    there: Service
    dsn: str
    admin: str
    log: Path

    def ask(self, method: str, path: str, key: str, json: Any = None, at: Service | None = None, **more: str) -> Reply:
        service = at or self.here
        return service.http.send(method, f"{service.url}{path}", json, headers={**bearer(key), **more})

    def make(self, by: str | None = None, **body: Any) -> str:
        reply = self.ask("POST", "/keys", by or self.admin, {"name": next(_names), **body})
        assert reply.status == 201, reply
        return str(reply.body["key"])

    def listed(self, key: str) -> dict[str, Any]:
        found = self.ask("GET", "/keys", self.admin).body["keys"]
        return next(one for one in found if one["id"] == id_of(key))


@pytest.fixture(scope="module")
def lasting(
    postgres: str, http: Http, sandbox_processes: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    dsn, log = migrated(postgres, "orders_keys"), tmp_path_factory.mktemp("keys") / "log.txt"
    execute(dsn, "DELETE FROM access_keys")
    with log.open("a") as stderr:
        more = {**usual(dsn, sandbox_processes), "orders_access_log": "true"}
        running = [start_service(http, log=stderr, **more) for _ in range(2)]
        try:
            wait_until(lambda: [listening(each) for each in running], "both listen")
            yield Shop(*running, dsn, key_in(dsn, *ALL_SCOPES), log)
        finally:
            stop(running)


@pytest.fixture
def shop(lasting: Shop, sandbox: Sandbox) -> Shop:
    return lasting


# The first key -------------------------------------------------------------------------------------------------------


def test_the_first_key_ends_the_access_without_any_at_every_replica(start: Start) -> None:
    here, there = start(), start()
    for service in (here, there):
        assert service.get("/orders").status == 200
        assert service.get("/keys").body == {"keys": []}
    made = here.http.post(f"{here.url}/keys", {"name": "first", "as": "admin"}, headers={"X-Actor": "anna"})
    assert made.status == 201
    assert made.body["created_by"] == "local/anna"
    refused = here.get("/orders")  # at once
    assert problem(refused, 401, "credential_required")["detail"].count("orders keys create") == 1
    assert refused.headers["www-authenticate"] == "Bearer"
    key = bearer(made.body["key"])
    assert there.get("/orders", headers=key).status == here.get("/orders", headers=key).status == 200
    wait_until(lambda: there.get("/orders").status == 401, "the other replica is closed, too")
    revoke = here.http.send("DELETE", f"{here.url}/keys/{made.body['id']}", headers=key)
    assert revoke.status == 204
    assert start().get("/orders").status == 401  # closed stays closed, also after a start without a key that works
    for service in (here, there):
        assert service.get("/health").status == service.get("/").status == service.get("/docs").status == 200


def test_a_key_made_elsewhere_closes_a_running_service(start: Start, dsn: str) -> None:
    service = start()
    assert service.get("/orders").status == 200
    key = key_in(dsn, Scope.ORDERS_READ)
    assert service.get("/orders", headers=bearer(key)).status == 200
    wait_until(lambda: service.get("/orders").status == 401, "it is closed")


# Made and used -------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once(shop: Shop) -> None:
    body = {"name": "till 3", "as": "storefront", "scopes": ["reports:read"], "channel": "pos", "rate": 1000}
    expires_at = (datetime.now(UTC) + timedelta(days=90)).replace(microsecond=0)
    made = shop.ask("POST", "/keys", shop.admin, {**body, "expires_at": expires_at.isoformat()})
    assert made.status == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.body.pop("key")
    assert id_of(key) == made.body["id"]
    assert made.body == {
        "id": id_of(key), "name": "till 3", "scopes": ["orders:read", "orders:place", "reports:read"],
        "channel": "pos", "rate": 1000, "expires_at": f"{expires_at:%Y-%m-%dT%H:%M:%SZ}", "replaced_by": None,
        "revoked_at": None, "used_at": None, "created_at": made.body["created_at"],
        "created_by": made.body["created_by"],
    }  # fmt: skip
    assert made.body["created_by"].startswith("key:key ")
    listed = shop.ask("GET", "/keys", shop.admin, at=shop.there)
    assert listed.headers["cache-control"] == "no-store"
    assert made.body in listed.body["keys"]
    assert key[13:] not in str(listed.body)


@pytest.mark.parametrize("preset", Preset)
def test_a_key_may_do_what_its_preset_says_and_nothing_else(shop: Shop, preset: Preset) -> None:
    key, scopes = shop.make(**{"as": preset}), scopes_of([preset], ())
    asked = [
        ("GET", "/orders", Scope.ORDERS_READ, Scope.ORDERS_CHANGE),
        ("POST", "/orders/42", Scope.ORDERS_PLACE, Scope.ORDERS_PLACE),
        ("PUT", "/orders/42", Scope.ORDERS_CHANGE, Scope.ORDERS_CHANGE),
        ("GET", "/reports/statuses", Scope.REPORTS_READ, Scope.REPORTS_READ),
        ("GET", "/keys", Scope.ACCESS_MANAGE, Scope.ACCESS_MANAGE),
        ("POST", "/dry-run/orders/42/cancel", Scope.ORDERS_CHANGE, Scope.ORDERS_CHANGE),
    ]
    for method, path, needed, also in asked:
        for service in (shop.here, shop.there):
            reply = shop.ask(method, path, key, {} if method != "GET" else None, at=service)
            if scopes & {needed, also}:
                assert reply.status not in (401, 403), (method, path, reply)
            else:
                assert problem(reply, 403, "not_permitted")["required_scope"] == needed


def test_nobody_gives_what_they_do_not_have(shop: Shop) -> None:
    manager = shop.make(scopes=["access:manage", "orders:change"])
    for body, missing in (
        ({"as": "admin"}, "orders:place"),
        ({"scopes": ["ops"]}, "ops:read"),
        ({"scopes": ["orders:read", "customers:read"]}, "customers:read"),
    ):
        refused = shop.ask("POST", "/keys", manager, {"name": "more", **body})
        assert problem(refused, 403, "not_permitted")["required_scope"] == missing
    shop.make(by=manager, scopes=["orders:read"])  # changing implies reading


def test_nobody_gets_more_by_rotating_anothers_key(shop: Shop) -> None:
    manager, other = shop.make(scopes=["access:manage"]), shop.make(**{"as": "warehouse"})
    refused = shop.ask("POST", f"/keys/{id_of(other)}/rotate", manager)
    assert problem(refused, 403, "not_permitted")["required_scope"] == "orders:read"
    assert shop.listed(other)["replaced_by"] is None
    assert shop.ask("DELETE", f"/keys/{id_of(other)}", manager).status == 204  # taking away is not giving


def test_a_key_of_a_channel_knows_that_channels_keys_only(shop: Shop) -> None:
    manager = shop.make(scopes=["access:manage", "orders:read"], channel="web")
    web, pos = shop.make(scopes=["orders:read"], channel="web"), shop.make(scopes=["orders:read"], channel="pos")
    everywhere = shop.make(scopes=["orders:read"])
    for channel in ({}, {"channel": "pos"}):
        refused = shop.ask("POST", "/keys", manager, {"name": "more", "scopes": ["orders:read"], **channel})
        assert "channel web" in problem(refused, 403, "not_permitted")["detail"]
    shop.make(by=manager, scopes=["orders:read"], channel="web")
    assert {key["channel"] for key in shop.ask("GET", "/keys", manager).body["keys"]} == {"web"}
    for other in (pos, everywhere, shop.admin, make_key()):
        assert shop.ask("DELETE", f"/keys/{id_of(other)}", manager).status == 404
        assert shop.ask("POST", f"/keys/{id_of(other)}/rotate", manager).status == 404
    assert shop.ask("POST", f"/keys/{id_of(web)}/rotate", manager).status == 201
    assert shop.ask("DELETE", f"/keys/{id_of(web)}", manager).status == 204


def test_the_use_of_a_key_is_noted(shop: Shop) -> None:
    key = shop.make(scopes=["orders:read"])
    assert shop.ask("GET", "/orders", key, at=shop.there).status == 200
    used_at = wait_until(lambda: shop.listed(key)["used_at"], "the round has written it")
    assert shop.ask("GET", "/orders", key).status == 200
    assert shop.listed(key)["used_at"] == used_at


def test_no_secret_is_in_the_log(shop: Shop) -> None:
    key = shop.make(scopes=["orders:read"])
    assert shop.ask("GET", "/workflow", key).status == 200
    assert shop.ask("GET", "/reports/statuses", key).status == 403
    assert shop.ask("GET", "/orders", f"{key[:-1]}!").status == 401
    wait_until(lambda: shop.log.read_text().count("401"), "the log has it")
    for part in (key[13:], key[13:40], shop.admin[13:40]):
        assert part not in shop.log.read_text()


def test_changes_of_keys_are_in_the_audit(shop: Shop) -> None:
    made = shop.ask("POST", "/keys", shop.admin, {"name": "x", "as": "finance"}, **{"X-Request-ID": "make-1"}).body
    shop.ask("POST", f"/keys/{made['id']}/rotate", shop.admin, **{"X-Actor": "anna"})
    shop.ask("DELETE", f"/keys/{made['id']}", shop.admin)
    shop.ask("DELETE", f"/keys/{made['id']}", shop.admin)
    rows = execute(
        shop.dsn, "SELECT action, host(address), actor FROM audit WHERE subject = %s ORDER BY id", (made["id"],)
    )
    assert [row[0] for row in rows] == ["key_created", "key_rotated", "key_revoked"]
    assert {row[1] for row in rows} == {"127.0.0.1"}
    assert rows[1][2].endswith("/anna")
    assert execute(shop.dsn, "SELECT request_id FROM audit WHERE subject = %s ORDER BY id", (made["id"],))[0] == (
        "make-1",
    )


# Ended ---------------------------------------------------------------------------------------------------------------


def accepts(service: Service, key: str) -> bool:
    reply = service.get("/workflow", headers=bearer(key))
    assert reply.status in (200, 401), reply
    return reply.status == 200


def test_a_revoked_key_ends_at_every_replica(shop: Shop) -> None:
    key = shop.make(scopes=["orders:read"])
    assert accepts(shop.here, key)
    assert accepts(shop.there, key)
    for _ in range(2):  # safe to repeat
        revoked = shop.ask("DELETE", f"/keys/{id_of(key)}", shop.admin)
        assert (revoked.status, revoked.body) == (204, "")
    assert not accepts(shop.here, key)
    wait_until(lambda: not accepts(shop.there, key), "the other replica has seen it", within_s=20)
    assert shop.listed(key)["revoked_at"]


def test_a_rotated_key_goes_on_beside_the_new_one(shop: Shop) -> None:
    old = shop.make(scopes=["orders:read", "ops"], channel="web", rate=1000)
    assert accepts(shop.here, old)
    rotated = shop.ask("POST", f"/keys/{id_of(old)}/rotate", shop.admin)  # 24 h
    assert rotated.status == 201
    new = rotated.body["key"]
    for key in (old, new):
        assert accepts(shop.here, key)
        assert accepts(shop.there, key)
    before, after = shop.listed(old), shop.listed(new)
    assert before["replaced_by"] == after["id"]
    ends_in = datetime.fromisoformat(before["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23) < ends_in <= timedelta(hours=24)
    for member in ("name", "scopes", "channel", "rate"):
        assert before[member] == after[member]
    again = shop.ask("POST", f"/keys/{id_of(old)}/rotate", shop.admin)
    assert problem(again, 409, "key_ended")["replaced_by"] == after["id"]


def test_a_key_that_is_not_kept_ends_with_its_rotation(shop: Shop) -> None:
    old = shop.make(scopes=["orders:read"])
    assert accepts(shop.there, old)
    rotated = shop.ask("POST", f"/keys/{id_of(old)}/rotate", shop.admin, {"keep_old_for_h": 0})
    assert not accepts(shop.here, old)
    assert accepts(shop.there, rotated.body["key"])
    wait_until(lambda: not accepts(shop.there, old), "the other replica has seen it", within_s=20)


def test_a_key_ends_at_its_expiry(shop: Shop) -> None:
    key = key_in(shop.dsn, Scope.ORDERS_READ, lasts=timedelta(seconds=1.5))
    ends_at = datetime.now(UTC) + timedelta(seconds=1.5)
    assert accepts(shop.here, key)
    wait_until(lambda: not accepts(shop.here, key), "it has expired")
    assert datetime.now(UTC) > ends_at - timedelta(seconds=1)
    refused = shop.ask("POST", f"/keys/{id_of(key)}/rotate", shop.admin)
    assert "expired" in problem(refused, 409, "key_ended")["detail"]


def test_a_wrong_key_is_told_nothing_more_than_an_expired_or_a_revoked_one(shop: Shop) -> None:
    good, revoked = shop.make(scopes=["orders:read"]), shop.make(scopes=["orders:read"])
    shop.ask("DELETE", f"/keys/{id_of(revoked)}", shop.admin)
    start = good[:13] + make_key()[13:56]
    expired = key_in(shop.dsn, Scope.ORDERS_READ)
    execute(
        shop.dsn,
        "UPDATE access_keys SET expires_at = now() - interval '1 s' WHERE id = %s RETURNING id",
        (id_of(expired),),
    )
    wrong = {
        "unknown": make_key(), "of another secret": start + checksum(start), "revoked": revoked, "expired": expired,
        "mistyped": good[:-1] + ("0" if good[-1] != "0" else "1"), "cut": good[:-1], "no key": "secret",
        "like a key": "ord_", "like a token": "a.b.c",
    }  # fmt: skip
    answers = {name: shop.ask("GET", "/orders", key) for name, key in wrong.items()}
    bodies = [problem(answer, 401, "credential_invalid") for answer in answers.values()]
    assert all(body == bodies[0] for body in bodies), answers
    assert {answer.headers["www-authenticate"] for answer in answers.values()} == {"Bearer"}
    assert accepts(shop.here, good)


# Malformed -----------------------------------------------------------------------------------------------------------


def status_of(service: Service, *headers: bytes) -> tuple[int, bytes]:
    """The status and the rest of what comes back for these headers, byte by byte."""
    host, port = service.url.removeprefix("http://").split(":")
    head = b"\r\n".join([b"GET /orders HTTP/1.1", f"Host: {host}:{port}".encode(), b"Connection: close", *headers])
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # the server does not read all of it
            connection.sendall(head + b"\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    return int(answer.split()[1]), answer


def test_whatever_stands_in_the_header_is_refused(shop: Shop) -> None:
    key = shop.admin.encode()
    for value in (
        b"", b"Bearer", b"Bearer ", key, b"Basic " + key, b"Bearer " + key + b" x", b"Bearer  \xff\xfe",
        "Bearer ord_schlüssel_ключ".encode(), b"Bearer \xe9" + key[1:], b"Bearer " + key[:-1] + b"\xff",
        b"Digest username=x", b"Bearer=" + key, b"Bearer ord_" + b"x" * 10_000,
    ):  # fmt: skip
        status, answer = status_of(shop.here, b"Authorization: " + value)
        assert status == 401, value
        assert b'"credential_invalid"' in answer
        assert b"www-authenticate: Bearer" in answer.lower().replace(b"bearer", b"Bearer")
    assert status_of(shop.here, b"AUTHORIZATION: bEARER  " + key + b" ")[0] == 200


def test_two_credentials_are_none(shop: Shop) -> None:
    key = b"Authorization: Bearer " + shop.admin.encode()
    for headers in ((key, key), (key, b"authorization: Bearer nothing"), (b"Authorization: Basic eA==", key)):
        status, answer = status_of(shop.here, *headers)
        assert status == 401
        assert b"send one" in answer


def test_a_header_of_ten_megabytes_is_not_read_to_its_end(shop: Shop) -> None:
    assert status_of(shop.here, b"Authorization: Bearer ord_" + b"x" * 10_000_000)[0] == 431
    assert accepts(shop.here, shop.admin)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/name"),
        ({"name": "x"}, "#"),
        ({"name": "x", "scopes": []}, "#/scopes"),
        ({"name": "x", "scopes": ["orders:destroy"]}, "#/scopes/0"),
        ({"name": "x", "scopes": "ops"}, "#/scopes"),
        ({"name": "x", "as": "king"}, "#/as"),
        ({"name": "x", "preset": "admin"}, "#/preset"),
        ({"name": "", "as": "admin"}, "#/name"),
        ({"name": "x/y", "as": "admin"}, "#/name"),
        ({"name": "x\n", "as": "admin"}, "#/name"),
        ({"name": "x" * 61, "as": "admin"}, "#/name"),
        ({"name": "ключ", "as": "admin"}, "#/name"),
        ({"name": 7, "as": "admin"}, "#/name"),
        ({"name": "x", "as": "admin", "channel": "Web"}, "#/channel"),
        ({"name": "x", "as": "admin", "channel": ""}, "#/channel"),
        ({"name": "x", "as": "admin", "rate": 0}, "#/rate"),
        ({"name": "x", "as": "admin", "rate": "5"}, "#/rate"),
        ({"name": "x", "as": "admin", "rate": True}, "#/rate"),
        ({"name": "x", "as": "admin", "expires_at": "tomorrow"}, "#/expires_at"),
        ({"name": "x", "as": "admin", "expires_at": "2027-02-28"}, "#/expires_at"),
        ({"name": "x", "as": "admin", "expires_at": "2027-02-28T00:00:00"}, "#/expires_at"),
        ({"name": "x", "as": "admin", "expires_at": "2027-02-31T00:00:00Z"}, "#/expires_at"),
        ({"name": "x", "as": "admin", "expires_at": "9999-12-31T23:59:59-10:00"}, "#/expires_at"),
        ({"name": "x", "as": "admin", "expires_at": "2020-01-01T00:00:00Z"}, "#/expires_at"),
        ({"name": "x", "as": "admin", "expires_at": "9999-12-31T23:59:59Z"}, "#/expires_at"),
        ({"name": "x", "as": "admin", "expires_at": 1900000000}, "#/expires_at"),
        ({"name": "x", "as": "admin", "key": make_key()}, "#/key"),
    ],
)
def test_a_malformed_key_is_not_made(shop: Shop, body: Any, pointer: str) -> None:
    refused = problem(shop.ask("POST", "/keys", shop.admin, body), 422, "invalid_request")
    assert refused["errors"][0]["pointer"] == pointer, refused


def test_what_is_asked_of_no_key_is_refused(shop: Shop) -> None:
    for key_id in ("00000000", "short", "k3V9aQ2mX", "%00", "k3V9aQ2%0A", "schl%C3%BCssl"):
        for method, path in (("DELETE", f"/keys/{key_id}"), ("POST", f"/keys/{key_id}/rotate")):
            problem(shop.ask(method, path, shop.admin), 404, "not_found")
    own = f"/keys/{id_of(shop.admin)}"
    for hours in (-1, 721, "24", 1.5, None):
        refused = shop.ask("POST", f"{own}/rotate", shop.admin, {"keep_old_for_h": hours})
        assert problem(refused, 422, "invalid_request")["errors"][0]["pointer"] == "#/keep_old_for_h"
    for method, path in (("GET", "/keys?x=1"), ("DELETE", f"{own}?force=true"), ("POST", f"{own}/rotate?x=1")):
        problem(shop.ask(method, path, shop.admin), 422, "invalid_request")
    problem(shop.ask("GET", own, shop.admin), 405, "method_not_allowed")
    assert shop.listed(shop.admin)["replaced_by"] is None


# Without a database --------------------------------------------------------------------------------------------------


def test_while_the_database_is_away_nobody_new_is_let_in_and_known_keys_end_soon(http: Http, sandbox: Sandbox) -> None:
    cluster = Cluster(EMBEDDED, free_port())
    cluster.initialize()
    running: list[Service] = []
    try:
        cluster.start(fsync="off")
        running.append(start_service(http, **usual(cluster.dsn, sandbox)))
        service = listening(running[0])
        key, other = key_in(cluster.dsn, Scope.ORDERS_READ), key_in(cluster.dsn, Scope.ORDERS_READ)
        assert accepts(service, key)
        cluster.stop()
        assert service.get("/workflow", headers=bearer(key)).status == 200  # it is known, and needs no database
        problem(service.get("/workflow", headers=bearer(other)), 503, "database_unavailable")
        problem(service.get("/workflow", headers=bearer(make_key())), 503, "database_unavailable")
        assert service.get("/workflow", headers=bearer(f"{key}0")).status == 401
        ended = wait_until(
            lambda: (reply := service.get("/workflow", headers=bearer(key))).status != 200 and reply, "it ends"
        )
        assert problem(ended, 503, "database_unavailable")
        assert ended.headers["retry-after"] == "1"
        assert service.get("/workflow").status in (401, 503)  # never open
        cluster.start(fsync="off")
        for each in (key, other):
            wait_until(lambda k=each: service.get("/workflow", headers=bearer(k)).status == 200, "they go on")
    finally:
        stop(running)
        cluster.remove()


def test_without_any_key_and_database_this_machine_is_not_let_in_for_long(http: Http, sandbox: Sandbox) -> None:
    cluster = Cluster(EMBEDDED, free_port())
    cluster.initialize()
    running: list[Service] = []
    try:
        cluster.start(fsync="off")
        running.append(start_service(http, **usual(cluster.dsn, sandbox)))
        service = listening(running[0])
        assert service.get("/workflow").status == 200
        cluster.stop()
        refused = wait_until(lambda: (reply := service.get("/workflow")).status != 200 and reply, "it ends")
        problem(refused, 503, "database_unavailable")
        cluster.start(fsync="off")
        wait_until(lambda: service.get("/workflow").status == 200, "it goes on")
    finally:
        stop(running)
        cluster.remove()
