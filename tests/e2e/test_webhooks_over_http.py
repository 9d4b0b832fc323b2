"""Webhooks over HTTP: made, shown, changed, tested, replayed and deleted, by whoever may, with real receivers."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest

from orders.postgres.database import Connection, connect
from orders.principal import LOCAL, Principal, Scope
from orders.settings import Settings
from orders.webhooks.signing import SignatureKind, new_key
from orders.webhooks.wanted import FOR_ENDPOINTS
from tests.asking import Counter, Told, a_key, counter
from tests.conftest import ask, free_port
from tests.integration.test_assigning import make_orders, touch
from tests.receiver import OK, SECRET, Receiver, answer, require_signed
from tests.unit.test_webhook_addresses import BAD_URLS, PUBLIC, SPECIAL

MANAGING = frozenset({Scope.WEBHOOKS_MANAGE})
ADMIN = a_key("admin", scopes=MANAGING | {Scope.EVENTS_READ, Scope.ORDERS_CHANGE})
WEB, APP = (a_key(channel, channel, MANAGING) for channel in ("web", "app"))
READER = a_key("reader", scopes=frozenset({Scope.WEBHOOKS_READ}))


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(dsn)) as connection:
        yield connection


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "orders_secret": SECRET,
            "orders_webhook_allow": "127.0.0.1",
            "orders_webhook_retries": "0s,1d",
            "orders_webhook_timeout_s": 5.0,
            "orders_webhooks": 5,
        }
    )


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Counter]:
    async with counter(settings) as asked:
        yield asked


async def made(
    shop: Counter, url: str, who: Principal = ADMIN, headers: dict[str, str] | None = None, **more: Any
) -> Told:
    return await shop.ask(who, "POST", "/webhooks", {"url": url, **more}, **headers or {})


async def added(shop: Counter, url: str, who: Principal = ADMIN, **more: Any) -> str:
    told = await made(shop, url, who, **more)
    assert told.status == 201, told
    return str(told.body["id"])


async def deliveries(shop: Counter, webhook_id: str, query: str = "", who: Principal = ADMIN) -> list[dict[str, Any]]:
    """All of them, page by page."""
    path: str | None = f"/webhooks/{webhook_id}/deliveries?{query}"
    found: list[dict[str, Any]] = []
    while path:
        told = await shop.ask(who, "GET", path)
        assert told.status == 200, told
        found += told.body["deliveries"]
        path = told.body["next"]
    return found


async def until_ended(shop: Counter, webhook_id: str, count: int) -> list[dict[str, Any]]:
    """The deliveries, once so many have ended."""
    async with asyncio.timeout(30):
        while True:
            found = await deliveries(shop, webhook_id)
            if sum(one["state"] in ("delivered", "failed") for one in found) >= count:
                return found
            await asyncio.sleep(0.05)


async def until_passed(shop: Counter, webhook_id: str, position: int) -> None:
    async with asyncio.timeout(30):
        while (await shop.ask(ADMIN, "GET", f"/webhooks/{webhook_id}")).body["position"] < position:
            await asyncio.sleep(0.05)


# Made and shown ------------------------------------------------------------------------------------------------------


async def test_a_secret_is_shown_once_and_signs(shop: Counter, connection: Connection) -> None:
    async with Receiver() as receiver:
        told = await made(shop, receiver.url, description="ERP", types=["order.*", "webhook.*"])
        assert told.status == 201
        assert told.headers["cache-control"] == "no-store"
        assert (told.headers["etag"], told.headers["location"]) == ('"1"', f"/webhooks/{told.body['id']}")
        secret = told.body.pop("secret")
        assert told.body == {
            "id": told.body["id"], "url": receiver.url, "description": "ERP", "types": ["order.*", "webhook.*"],
            "channel": None, "payload": "full", "schema_version": 1, "ordering": "order", "concurrency": 8,
            "signature": "v1", "public_key": None, "old_secret_signs_until": None, "status": "enabled",
            "disabled_reason": None, "position": 0, "version": 1, "created_at": told.body["created_at"],
            "created_by": "key:admin",
            "health": {
                "state": "ok", "failing_since": None, "waiting": 0, "behind": 0, "lag_s": 0.0, "delivered_24h": 0,
                "failed_24h": 0,
            },
        }  # fmt: skip
        shown = await shop.ask(READER, "GET", f"/webhooks/{told.body['id']}")
        assert shown.body == told.body
        assert shown.headers["etag"] == '"1"'
        assert (await shop.ask(READER, "GET", "/webhooks")).body == {"webhooks": [told.body]}
        make_orders(connection, 2, events=2)
        await until_ended(shop, told.body["id"], 4)
        for got in receiver.got:
            require_signed(got, secret)
        health = (await shop.ask(READER, "GET", f"/webhooks/{told.body['id']}")).body["health"]
        assert (health["delivered_24h"], health["waiting"], health["behind"]) == (4, 0, 0)


async def test_a_given_secret_is_the_one_that_signs(shop: Counter, connection: Connection) -> None:
    key = new_key(SignatureKind.V1)
    async with Receiver() as receiver:
        told = await made(shop, receiver.url, secret=key.text)
        assert told.body["secret"] == key.text
        assert (await shop.ask(ADMIN, "POST", f"/webhooks/{told.body['id']}/test")).body["delivered"]
        require_signed(receiver.got[0], key.text)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "rubbish!", "whsec_" + "A" * 120, "\0"])
async def test_a_bad_secret_is_refused_and_not_repeated(shop: Counter, secret: str) -> None:
    told = await made(shop, "https://1.1.1.1/hook", secret=secret)
    assert (told.status, told.code) == (422, "invalid_request")
    assert told.body["errors"][0]["pointer"] == "#/secret"
    assert len(secret) < 10 or secret not in json.dumps(told.body)


async def test_of_a_key_pair_the_public_key_can_be_read(shop: Counter) -> None:
    told = await made(shop, "https://1.1.1.1/hook", signature="ed25519")
    assert told.body["secret"].startswith("whsk_")
    assert told.body["public_key"].startswith("whpk_")
    shown = (await shop.ask(READER, "GET", f"/webhooks/{told.body['id']}")).body
    assert (shown["signature"], shown["public_key"]) == ("ed25519", told.body["public_key"])
    key = new_key(SignatureKind.V1).text
    refused = await made(shop, "https://1.1.1.1/hook", signature="ed25519", secret=key)
    assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "#/secret")


async def test_a_repeated_request_makes_one_webhook_and_shows_no_secret(shop: Counter, connection: Connection) -> None:
    once = {"Idempotency_Key": "erp-1"}
    all_told = await asyncio.gather(*(made(shop, "https://1.1.1.1/hook", headers=once) for _ in range(5)))
    assert {told.status for told in all_told} == {201}
    assert len({told.body["id"] for told in all_told}) == 1
    secrets = [told.body["secret"] for told in all_told]
    assert sorted(secret is None for secret in secrets) == [False, True, True, True, True]
    (repeated, *_) = (told for told in all_told if told.body["secret"] is None)
    assert (repeated.headers["idempotent-replayed"], repeated.headers["etag"]) == ("true", '"1"')
    assert ask(connection, "SELECT count(*) FROM webhooks") == [(1,)]
    other = await made(shop, "https://1.1.1.1/other", headers=once)
    assert (other.status, other.code) == (422, "key_reused")
    strangers = await made(shop, "https://1.1.1.1/hook", WEB, headers=once)
    assert strangers.body["secret"]  # another one's key is another key


@pytest.mark.parametrize(
    "types",
    [["order.placd"], ["order.*", "placed"], ["webhook.x"], ["**"], [""], ["\0"], [], ["*"] * 51, [1], "*", None],
)
async def test_an_unknown_type_is_refused_and_the_known_ones_are_named(shop: Counter, types: Any) -> None:
    told = await made(shop, "https://1.1.1.1/hook", types=types)
    assert (told.status, told.code) == (422, "invalid_request")
    if types and all(isinstance(name, str) for name in types) and isinstance(types, list) and len(types) < 3:
        assert all(name in told.body["detail"] for name in FOR_ENDPOINTS)


async def test_every_known_type_can_be_asked_for(shop: Counter) -> None:
    told = await made(shop, "https://1.1.1.1/hook", types=[*FOR_ENDPOINTS, "order.placed"])
    assert told.body["types"] == list(FOR_ENDPOINTS)


async def test_there_are_as_many_as_the_setting_allows_however_many_ask(shop: Counter) -> None:
    all_told = await asyncio.gather(*(made(shop, "https://1.1.1.1/hook") for _ in range(9)))
    assert sorted(told.status for told in all_told) == [201] * 5 + [409] * 4
    assert {told.code for told in all_told if told.status == 409} == {"too_many_webhooks"}


async def test_without_a_secret_of_the_service_it_says_which_setting_is_missing(settings: Settings) -> None:
    async with counter(settings.model_copy(update={"orders_secret": None})) as shop:
        told = await made(shop, "https://1.1.1.1/hook")
        assert (told.status, told.code) == (503, "secret_not_set")
        assert "ORDERS_SECRET" in told.body["detail"]
        assert (await shop.ask(ADMIN, "GET", "/webhooks")).body == {"webhooks": []}


# Where it may lead ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", BAD_URLS)
async def test_a_bad_url_is_refused(shop: Counter, url: str) -> None:
    told = await made(shop, url)
    assert (told.status, told.code) == (422, "invalid_request")
    assert told.body["errors"][0]["pointer"] == "#/url"


async def test_a_special_address_is_refused_and_a_public_one_is_not(settings: Settings) -> None:
    update = {"orders_webhook_allow": "", "orders_webhooks": 100}
    async with counter(settings.model_copy(update=update)) as shop:
        webhook_id = await added(shop, "https://1.1.1.1/hook")
        for address in SPECIAL:
            host = f"[{address}]" if ":" in address else address
            for scheme in ("https", "http"):
                told = await made(shop, f"{scheme}://{host}:8443/hook")
                assert told.status == 422, address
                assert told.code in ("address_not_allowed", "invalid_request"), address
            patch = {"url": f"https://{host}/hook"}
            assert (await shop.ask(ADMIN, "PATCH", f"/webhooks/{webhook_id}", patch)).status == 422, address
        for address in PUBLIC:
            host = f"[{address}]" if ":" in address else address
            await added(shop, f"https://{host}/hook")
            told = await made(shop, f"http://{host}/hook")
            assert (told.status, told.code) == (422, "address_not_allowed"), "it has no https"


async def test_a_name_that_leads_to_a_private_address_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"private.example": ["10.0.0.7"], "mixed.example": ["1.1.1.1", "127.0.0.1"], "public.example": ["1.1.1.1"]}

    def look_up(host: str, *_: Any, **__: Any) -> Any:
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in known[host]]

    async with counter(settings) as shop:
        monkeypatch.setattr("orders.webhooks.resolving.socket.getaddrinfo", look_up)
        for name in ("private.example", "mixed.example"):
            assert (await made(shop, f"https://{name}/hook")).code == "address_not_allowed"
        for name in ("public.example", "unknown.example"):  # what can't be looked up now may be good later
            await added(shop, f"https://{name}/hook")
        assert (await made(shop, "http://unknown.example/hook")).code == "address_not_allowed"
        monkeypatch.undo()


# Changed -------------------------------------------------------------------------------------------------------------


async def test_of_changes_that_know_the_same_version_one_is_done(shop: Counter) -> None:
    webhook_id = await added(shop, "https://1.1.1.1/hook")
    path = f"/webhooks/{webhook_id}"
    for version in range(1, 4):
        all_told = await asyncio.gather(
            *(
                shop.ask(ADMIN, "PATCH", path, {"concurrency": 10 * version + n}, If_Match=f'"{version}"')
                for n in range(6)
            )
        )
        assert sorted(told.status for told in all_told) == [200] + [412] * 5
        (done,) = (told for told in all_told if told.status == 200)
        assert (done.headers["etag"], done.body["version"]) == (f'"{version + 1}"', version + 1)
        assert {told.body["version"] for told in all_told if told.status == 412} == {version + 1}
    same = await shop.ask(ADMIN, "PATCH", path, {"types": ["order.*"], "url": "https://1.1.1.1/hook"}, If_Match="*")
    assert (same.status, same.body["version"]) == (200, 4), "nothing changed"


async def test_each_member_can_be_changed(shop: Counter) -> None:
    path = f"/webhooks/{await added(shop, 'https://1.1.1.1/hook', description='old')}"
    changes = {
        "url": "https://8.8.8.8/", "types": ["order.placed"], "payload": "thin", "ordering": "none", "concurrency": 64,
        "description": None, "status": "disabled",
    }  # fmt: skip
    for version, (name, value) in enumerate(changes.items(), 2):
        told = await shop.ask(ADMIN, "PATCH", path, {name: value})
        assert (told.status, told.body[name], told.body["version"]) == (200, value, version), name
    for body in (
        {"channel": "web"}, {"secret": "whsec_x"}, {"url": None}, {"url": ""}, {"types": []}, {"status": "gone"},
        {"from": "now"}, {"from": "now", "status": "disabled"}, {"from": 7, "status": "enabled"}, {"concurrency": 0},
        {"description": "x" * 501}, {"version": 1}, {"payload": None}, [], "x",
    ):  # fmt: skip
        told = await shop.ask(ADMIN, "PATCH", path, body)
        assert (told.status, told.code) == (422, "invalid_request"), body


async def test_after_a_disable_nothing_is_sent_and_enabling_goes_on_where_it_stopped(
    shop: Counter, connection: Connection
) -> None:
    async with Receiver(lambda _: answer(500)) as receiver:
        webhook_id = await added(shop, receiver.url, ordering="none")
        path = f"/webhooks/{webhook_id}"
        make_orders(connection, 1, events=1)
        await receiver.until(lambda: receiver.got)
        await shop.ask(ADMIN, "PATCH", path, {"status": "disabled"})
        for again, body in ((f"{path}/test", None), (f"{path}/replay", {})):
            told = await shop.ask(ADMIN, "POST", again, body)
            assert (told.status, told.code) == (409, "webhook_disabled")
        (waiting,) = await deliveries(shop, webhook_id)
        told = await shop.ask(ADMIN, "POST", f"/webhook-deliveries/{waiting['id']}/redeliver")
        assert (told.status, told.code) == (409, "webhook_disabled")
        before, events = len(receiver.got), make_orders(connection, 3, events=1)
        other = await added(shop, receiver.url, **{"from": 1})
        await until_passed(shop, other, 4)
        assert len([got for got in receiver.got[before:] if got.event[0] == waiting["order_id"]]) == 0
        shown = (await shop.ask(READER, "GET", path)).body
        assert (shown["health"]["state"], shown["disabled_reason"], shown["health"]["behind"]) == (
            "disabled",
            "asked",
            3,
        )
        receiver.behave = lambda _: OK
        await shop.ask(ADMIN, "PATCH", path, {"status": "enabled"})
        found = await until_ended(shop, webhook_id, 4)
        assert {one["order_id"] for one in found} == {waiting["order_id"], *map(str, events)}
        assert {one["state"] for one in found} == {"delivered"}


async def test_enabled_from_now_on_it_leaves_out_what_it_has_not_got(shop: Counter, connection: Connection) -> None:
    async with Receiver(lambda _: answer(500)) as receiver:
        webhook_id = await added(shop, receiver.url)
        make_orders(connection, 2, events=1)
        await until_passed(shop, webhook_id, 2)
        await shop.ask(ADMIN, "PATCH", f"/webhooks/{webhook_id}", {"status": "disabled"})
        make_orders(connection, 2, events=1)
        async with asyncio.timeout(30):
            while (await shop.ask(ADMIN, "GET", "/events/head")).body["head"] < 4:
                await asyncio.sleep(0.02)
        told = await shop.ask(ADMIN, "PATCH", f"/webhooks/{webhook_id}", {"status": "enabled", "from": "now"})
        assert (told.body["position"], told.body["health"]["waiting"]) == (4, 0)
        assert [one["last_error"] for one in await deliveries(shop, webhook_id, "state=failed")] == ["skipped"] * 2
        receiver.behave, receiver.got = (lambda _: OK), []
        (order,) = make_orders(connection, 1, events=1)
        await receiver.until(lambda: receiver.got)
        assert {got.event[0] for got in receiver.got} == {order}


async def test_it_begins_where_it_was_told_to(shop: Counter, connection: Connection) -> None:
    make_orders(connection, 4, events=1)
    async with asyncio.timeout(30):
        while (await shop.ask(ADMIN, "GET", "/events/head")).body["head"] < 4:
            await asyncio.sleep(0.02)
    async with Receiver() as receiver:
        webhook_id = await added(shop, receiver.url, **{"from": 2})
        assert [one["position"] for one in await until_ended(shop, webhook_id, 2)] == [4, 3]
        ahead = await made(shop, receiver.url, **{"from": 5})
        assert (ahead.status, ahead.code, ahead.body["head"]) == (409, "position_ahead", 4)
        for start in (-1, 2**63, "then", 1.5, None, True):
            assert (await made(shop, receiver.url, **{"from": start})).status == 422, start


async def test_a_rotated_secret_signs_beside_the_new_one(shop: Counter) -> None:
    async with Receiver() as receiver:
        told = await made(shop, receiver.url)
        path, secrets = f"/webhooks/{told.body['id']}", [told.body["secret"]]
        for _ in range(4):
            rotated = await shop.ask(ADMIN, "POST", f"{path}/rotate", {"keep_old_for_h": 168})
            secrets.append(rotated.body["secret"])
            assert rotated.body["old_secret_signs_until"]
        assert (await shop.ask(ADMIN, "POST", f"{path}/test")).body["delivered"]
        for secret in secrets[-3:]:
            require_signed(receiver.got[-1], secret)
        assert receiver.got[-1].headers["webhook-signature"].count("v1,") == 3, "at most three sign"
        ended = await shop.ask(ADMIN, "POST", f"{path}/rotate", {"keep_old_for_h": 0})
        await shop.ask(ADMIN, "POST", f"{path}/test")
        require_signed(receiver.got[-1], ended.body["secret"])
        assert (await shop.ask(ADMIN, "GET", path)).body["version"] == 6
        for hours in (-1, 169, 1.5, "1", None):
            assert (await shop.ask(ADMIN, "POST", f"{path}/rotate", {"keep_old_for_h": hours})).status == 422


# Tested --------------------------------------------------------------------------------------------------------------


async def test_a_test_tells_what_was_sent_and_what_came_back(shop: Counter, connection: Connection) -> None:
    async with Receiver() as receiver:
        told = await made(shop, receiver.url)
        path = f"/webhooks/{told.body['id']}"
        result = (await shop.ask(ADMIN, "POST", f"{path}/test")).body
        assert (result["delivered"], result["status"], result["error"], result["reply"]) == (True, 200, None, "ok")
        (got,) = receiver.got
        assert got.body.decode() == result["request"]["body"]
        assert got.headers.items() >= result["request"]["headers"].items()
        assert got.message["type"] == "webhook.test"
        receiver.behave = lambda _: answer(500, body=b"why not")
        result = (await shop.ask(ADMIN, "POST", f"{path}/test")).body
        assert (result["delivered"], result["status"], result["reply"]) == (False, 500, "why not")
        assert receiver.got[-1].id != got.id
    result = (await shop.ask(ADMIN, "POST", f"{path}/test")).body
    assert (result["delivered"], result["status"], result["error"]) == (False, None, "connection_refused")
    shown = (await shop.ask(ADMIN, "GET", path)).body
    assert (shown["health"]["state"], await deliveries(shop, told.body["id"])) == ("ok", [])


async def test_with_another_secret_of_the_service_a_test_says_so(shop: Counter, settings: Settings) -> None:
    webhook_id = await added(shop, f"http://127.0.0.1:{free_port()}/")
    async with counter(settings.model_copy(update={"orders_secret": "another one, long enough"})) as other:
        told = await other.ask(ADMIN, "POST", f"/webhooks/{webhook_id}/test")
        assert (told.status, told.code) == (503, "secret_not_set")
        assert "another one" in told.body["detail"]
        assert (await other.ask(ADMIN, "POST", f"/webhooks/{webhook_id}/rotate", {})).status == 200
        assert (await other.ask(ADMIN, "POST", f"/webhooks/{webhook_id}/test")).status == 200


# Delivered again -----------------------------------------------------------------------------------------------------


async def test_a_delivery_tells_its_attempts_and_can_be_sent_again(shop: Counter, connection: Connection) -> None:
    async with Receiver(lambda _: answer(500)) as receiver:
        webhook_id = await added(shop, receiver.url)
        (order,) = make_orders(connection, 1, events=1)
        await until_passed(shop, webhook_id, 1)
        async with asyncio.timeout(30):
            while (found := await deliveries(shop, webhook_id))[0]["attempt_count"] < 1 or found[0][
                "state"
            ] == "sending":
                await asyncio.sleep(0.02)
        (waiting,) = found
        assert (waiting["state"], waiting["last_status"], waiting["last_reply"]) == ("waiting", 500, "no")
        assert (waiting["message_id"], waiting["due_at"] is not None) == (f"{order}-2", True)
        receiver.behave = lambda _: OK
        told = await shop.ask(ADMIN, "POST", f"/webhook-deliveries/{waiting['id']}/redeliver")
        assert (told.status, told.body["id"], told.body["round"]) == (202, waiting["id"], 0), "it is due now"
        await until_ended(shop, webhook_id, 1)
        told = await shop.ask(READER, "GET", f"/webhook-deliveries/{waiting['id']}")
        assert [(one["number"], one["status"]) for one in told.body.pop("attempts")] == [(1, 500), (2, 200)]
        told = await shop.ask(ADMIN, "POST", f"/webhook-deliveries/{waiting['id']}/redeliver")
        assert (told.status, told.body["round"]) == (202, 1)
        assert told.headers["location"] == f"/webhook-deliveries/{told.body['id']}"
        found = await until_ended(shop, webhook_id, 2)
        assert {one["state"] for one in found} == {"delivered"}
        assert len({got.body for got in receiver.got}) == len({got.id for got in receiver.got}) == 1


async def test_deliveries_are_found_by_state_type_and_order(shop: Counter, connection: Connection) -> None:
    async with Receiver() as receiver:
        webhook_id = await added(shop, receiver.url, types=["*"])
        orders = make_orders(connection, 5, events=2)
        touch(connection, orders[0])
        everything = await until_ended(shop, webhook_id, 11)
        for query, wanted in (
            ("", lambda one: True),
            ("state=delivered", lambda one: True),
            ("state=failed", lambda one: False),
            (f"type={everything[0]['type']}", lambda one: one["type"] == everything[0]["type"]),
            ("type=order.nothing", lambda one: False),
            (f"order_id={orders[0]}", lambda one: one["order_id"] == str(orders[0])),
            (f"order_id={uuid4()}", lambda one: False),
        ):
            for limit in (1, 3, 1000):
                found = await deliveries(shop, webhook_id, f"{query}&limit={limit}".lstrip("&"))
                assert found == [one for one in everything if wanted(one)], (query, limit)
        for query in (
            "state=gone",
            "type=",
            "order_id=7",
            "cursor=0",
            "cursor=x",
            "limit=0",
            "colour=red",
            "state=failed&state=failed",
        ):
            assert (await shop.ask(ADMIN, "GET", f"/webhooks/{webhook_id}/deliveries?{query}")).status == 422, query


async def test_a_page_looks_at_a_bounded_number_of_deliveries(
    shop: Counter, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_LIST", "_LAST_PASSED"):
        statement = getattr(__import__("orders.webhooks.deliveries_sql", fromlist=[name]), name)
        monkeypatch.setattr(f"orders.webhooks.deliveries_sql.{name}", statement.replace("LIMIT 10000", "LIMIT 3"))
    monkeypatch.setattr("orders.webhooks.deliveries_sql.PASSED", 3)
    async with Receiver() as receiver:
        webhook_id = await added(shop, receiver.url)
        make_orders(connection, 4, events=2)
        everything = await until_ended(shop, webhook_id, 8)
        assert len(everything) == 8
        first = await shop.ask(ADMIN, "GET", f"/webhooks/{webhook_id}/deliveries?state=failed")
        assert (first.body["deliveries"], first.body["next"] is not None) == ([], True)
        assert await deliveries(shop, webhook_id, "state=failed") == []
        assert await deliveries(shop, webhook_id, "state=delivered&limit=2") == everything


async def test_a_replay_delivers_as_many_as_its_dry_run_counts(shop: Counter, connection: Connection) -> None:
    async with Receiver() as receiver:
        webhook_id = await added(shop, receiver.url, ordering="none")
        orders = make_orders(connection, 6, events=2)
        for order in orders[:3]:
            touch(connection, order)
        await until_ended(shop, webhook_id, 15)
        failed = "UPDATE webhook_deliveries SET state = 'failed' WHERE position IN (2, 3, 14) AND round = 0"
        purged = "DELETE FROM webhook_deliveries WHERE position = 1"
        ask(connection, failed)
        ask(connection, purged)
        path, seen = f"/webhooks/{webhook_id}/replay", 15 - 1
        for body in (
            {"state": "failed", "after": 2}, {"state": "failed"}, {"state": "failed"}, {"after": 13}, {"until": 4},
            {"after": 3, "until": 7}, {"after": 7, "until": 3}, {"types": ["order.placed"]}, {"types": ["*"]}, {},
            {"types": ["order.*"], "state": "delivered", "until": 5}, {"after": 2**63 - 1}, {"until": 2**63 - 1},
        ):  # fmt: skip
            would = await shop.ask(ADMIN, "POST", f"{path}?dry_run=true", body)
            assert would.status == 200
            assert len(await deliveries(shop, webhook_id)) == seen, "a dry run delivers nothing"
            told = await shop.ask(ADMIN, "POST", path, body)
            assert (told.status, told.body) == (202, would.body), body
            seen += told.body["count"]
            found = await until_ended(shop, webhook_id, seen)
            assert len(found) == seen
        assert {one["round"] for one in found} > {0, 1, 2}
        latest = {one["position"]: one["state"] for one in reversed(found)}
        assert latest == dict.fromkeys(range(1, 16), "delivered")
        for body in (
            {"after": -1},
            {"until": 0},
            {"state": "waiting"},
            {"types": ["webhook.*"]},
            {"types": []},
            {"x": 1},
        ):
            assert (await shop.ask(ADMIN, "POST", path, body)).status == 422, body
        for query in ("dry_run=yes", "dry_run=true&dry_run=true", "dry_run=", "dry=true"):
            assert (await shop.ask(ADMIN, "POST", f"{path}?{query}", {})).status == 422, query


async def test_replays_at_once_double_nothing(shop: Counter, connection: Connection) -> None:
    webhook_id = await added(shop, f"http://127.0.0.1:{free_port()}/")
    make_orders(connection, 5, events=2)
    await until_passed(shop, webhook_id, 10)
    ask(connection, "UPDATE webhook_deliveries SET state = 'failed'")
    ask(connection, "UPDATE webhooks SET slow_until = now() + interval '1 hour'")
    replays = (shop.ask(ADMIN, "POST", f"/webhooks/{webhook_id}/replay", {}) for _ in range(6))
    assert sum(told.body["count"] for told in await asyncio.gather(*replays)) == 10


async def test_a_replay_of_too_many_says_where_the_first_part_ends(
    shop: Counter, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook_id = await added(shop, f"http://127.0.0.1:{free_port()}/")
    make_orders(connection, 5, events=1)
    await until_passed(shop, webhook_id, 5)
    ask(connection, "UPDATE webhook_deliveries SET state = 'failed'")
    ask(connection, "UPDATE webhooks SET slow_until = now() + interval '1 hour'")
    counting = __import__("orders.webhooks.deliveries_sql", fromlist=["_COUNT"])._COUNT
    fewer = counting.replace("LIMIT 10001", "LIMIT 4").replace("[10000]", "[3]")
    monkeypatch.setattr("orders.webhooks.deliveries_sql._COUNT", fewer)
    monkeypatch.setattr("orders.webhooks.deliveries_sql.MAX_REPLAYED", 3)
    for query in ("", "?dry_run=true"):
        told = await shop.ask(ADMIN, "POST", f"/webhooks/{webhook_id}/replay{query}", {})
        assert (told.status, told.body["errors"][0]["pointer"]) == (422, "#/until")
        assert "up to position 3" in told.body["detail"]
    assert (await shop.ask(ADMIN, "POST", f"/webhooks/{webhook_id}/replay", {"until": 3})).body == {"count": 3}


# Whose it is, and what is told of it ---------------------------------------------------------------------------------


async def requests_about(shop: Counter, webhook_id: str, delivery_id: int) -> list[tuple[str, str, Any]]:
    path, delivery = f"/webhooks/{webhook_id}", f"/webhook-deliveries/{delivery_id}"
    return [
        ("GET", path, None), ("PATCH", path, {"concurrency": 3}), ("PATCH", path, {"url": "https://1.1.1.1/other"}),
        ("PATCH", path, {"status": "disabled"}), ("POST", f"{path}/rotate", {}), ("POST", f"{path}/test", None),
        ("GET", f"{path}/deliveries", None), ("GET", delivery, None), ("POST", f"{delivery}/redeliver", None),
        ("POST", f"{path}/replay", {}), ("POST", f"{path}/replay?dry_run=true", {}), ("DELETE", path, None),
    ]  # fmt: skip


async def test_a_key_of_a_channel_knows_webhooks_of_that_channel_only(shop: Counter, connection: Connection) -> None:
    async with Receiver() as receiver:
        web = await added(shop, receiver.url, WEB)
        app = await added(shop, receiver.url, channel="app")
        everywhere = await added(shop, receiver.url)
        for channel in ("app", "x"):
            told = await made(shop, receiver.url, WEB, channel=channel)
            assert (told.status, told.code) == (403, "not_permitted")
        for who, own in ((WEB, [web]), (APP, [app]), (ADMIN, [web, app, everywhere])):
            listed = (await shop.ask(who, "GET", "/webhooks")).body["webhooks"]
            assert [one["id"] for one in listed] == own
        make_orders(connection, 1, events=1)
        ask(connection, "UPDATE orders SET channel = 'web'")
        await until_ended(shop, everywhere, 1)
        (delivery,) = await deliveries(shop, everywhere)
        before = ask(connection, "SELECT id, version, status, url FROM webhooks ORDER BY id")
        for foreign in (app, everywhere, str(uuid4())):
            for method, path, body in await requests_about(shop, foreign, delivery["id"]):
                told = await shop.ask(WEB, method, path, body)
                assert told.status == 404, (method, path)
                assert told.code in ("webhook_not_found", "delivery_not_found")
        assert ask(connection, "SELECT id, version, status, url FROM webhooks ORDER BY id") == before
        assert (await shop.ask(WEB, "GET", f"/webhooks/{web}")).body["channel"] == "web"


@pytest.mark.parametrize("text", ["7", "x", "00000000-0000-0000-0000-000000000000", "%00", "A" * 200])
async def test_what_is_no_webhook_and_no_delivery_is_not_found(shop: Counter, text: str) -> None:
    for method, path, body in await requests_about(shop, text, 0):
        told = await shop.ask(ADMIN, method, path, body)
        assert told.status == 404, (method, path)
    for number in ("0", "-1", "1.0", str(2**63), "9" * 30, "1"):
        assert (await shop.ask(ADMIN, "GET", f"/webhook-deliveries/{number}")).code == "delivery_not_found"


async def test_a_deleted_webhook_is_gone_with_all_that_it_had(shop: Counter, connection: Connection) -> None:
    async with Receiver(lambda _: answer(500)) as receiver:
        webhook_id = await added(shop, receiver.url)
        make_orders(connection, 4, events=1)
        await until_passed(shop, webhook_id, 4)
        assert (await shop.ask(ADMIN, "DELETE", f"/webhooks/{webhook_id}")).status == 204
        assert (await shop.ask(ADMIN, "DELETE", f"/webhooks/{webhook_id}")).status == 404
        for table in ("webhooks", "webhook_secrets", "webhook_deliveries", "webhook_attempts"):
            assert ask(connection, f"SELECT count(*) FROM {table}") == [(0,)], table


async def test_what_was_done_is_in_the_audit_without_secrets(shop: Counter, connection: Connection) -> None:
    key = new_key(SignatureKind.V1)
    async with Receiver() as receiver:
        told = await made(shop, receiver.url, secret=key.text, headers={"X_Request_ID": "make-1"})
        webhook_id, path = told.body["id"], f"/webhooks/{told.body['id']}"
        make_orders(connection, 1, events=1)
        (delivery,) = await until_ended(shop, webhook_id, 1)
        await shop.ask(ADMIN, "PATCH", path, {"concurrency": 3, "url": receiver.url + "&token=hidden"})
        await shop.ask(ADMIN, "PATCH", path, {"concurrency": 3})
        await shop.ask(ADMIN, "POST", f"{path}/rotate", {}, X_Actor="anna")
        await shop.ask(ADMIN, "POST", f"/webhook-deliveries/{delivery['id']}/redeliver")
        await until_ended(shop, webhook_id, 2)
        await shop.ask(ADMIN, "POST", f"{path}/replay", {})
        await shop.ask(ADMIN, "POST", f"{path}/replay?dry_run=true", {})
        await shop.ask(ADMIN, "DELETE", path)
    rows = ask(
        connection,
        "SELECT action, actor, request_id, before::text, after::text FROM audit WHERE subject = %s ORDER BY id",
        (webhook_id,),
    )
    assert [row[0].removeprefix("webhook_") for row in rows] == [
        "created", "changed", "rotated", "redelivered", "replayed", "deleted",
    ]  # fmt: skip
    assert rows[0][2] == "make-1"
    assert rows[2][1] == "key:admin/anna"
    assert json.loads(rows[1][4])["concurrency"] == 3
    for hidden in (key.text[6:], "token=hidden", "from=orders"):
        assert hidden not in str(rows)


async def test_no_secret_can_be_read_later(
    shop: Counter, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor one that a request was refused with; in no answer, in no log, and nowhere in the database."""
    caplog.set_level(logging.DEBUG)
    given = new_key(SignatureKind.V1).text
    once = {"Idempotency_Key": "once"}
    async with Receiver() as receiver:
        first = (await made(shop, receiver.url, secret=given, headers=once)).body
        pair = (await made(shop, receiver.url, signature="ed25519")).body
        rotated = (await shop.ask(ADMIN, "POST", f"/webhooks/{first['id']}/rotate", {})).body
        secrets = [given, first["secret"], pair["secret"], rotated["secret"]]
        make_orders(connection, 1, events=1)
        found = await until_ended(shop, first["id"], 1)
        later = [
            await made(shop, receiver.url, secret=given, headers=once),
            await made(shop, "https://10.0.0.1/", secret=given),
            await made(shop, receiver.url, secret=given, signature="ed25519"),
            await made(shop, receiver.url, secret=given + "!"),
            await made(shop, receiver.url, secret=[given]),
            await shop.ask(ADMIN, "GET", "/webhooks"),
            await shop.ask(LOCAL, "GET", "/audit"),
        ]
        for webhook_id in (first["id"], pair["id"]):
            for method, path, body in (await requests_about(shop, webhook_id, found[0]["id"]))[:-1]:
                if not path.endswith("/rotate"):
                    later.append(await shop.ask(ADMIN, method, path, body))
    rows: list[Any] = []
    for (table,) in ask(
        connection, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ):
        rows += ask(connection, f"SELECT t::text FROM {table} t")
    assert any("whpk_" in str(row) for row in rows)
    raw = [secret.partition("_")[2] for secret in secrets]
    for secret in raw:
        for told in later:
            assert secret not in json.dumps(told.body), told
            assert secret not in str(told.headers)
        assert secret not in caplog.text
        assert secret not in str(rows)
