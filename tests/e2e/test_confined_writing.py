"""Whoever asks places and changes only what is theirs: an order of somebody else answers as one that is not there."""

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.order.idempotency import ClientKey, Keyed
from orders.order.model import Line
from orders.placing.checkout import CheckoutRequest
from orders.postgres.database import connect
from orders.principal import LOCAL, SEES_EVERYTHING, Principal
from orders.settings import Settings
from tests.asking import SHOP, Counter, Told, a_customer, a_key, counter
from tests.conftest import Sandbox, ask, execute

ADMIN, WEB, APP = a_key("admin"), a_key("web", "web"), a_key("app", "app")
BLIND = a_key("blind", "app", SHOP)
ANNA, BERT = a_customer(42), a_customer(43)


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Counter]:
    async with counter(settings) as asked:
        yield asked


@pytest.fixture
def product(sandbox: Sandbox) -> int:
    return sandbox.product(1000)


async def placed(shop: Counter, who: Principal, product: int, customer: int = 42, **more: Any) -> dict[str, Any]:
    body = {"items": [{"product_id": product, "quantity": 3}], **more}
    told = await shop.ask(who, "POST", f"/orders/{customer}", body)
    assert told.status == 201, told
    return dict(told.body)


def requests_about(order: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Each operation that changes one order."""
    some = [{"id": order["items"][0]["id"], "quantity": 1}]
    path = f"/orders/{order['id']}"
    for before, after in (("", ""), ("", "?dry_run=true"), ("/dry-run", "")):
        yield "PUT", f"{before}{path}{after}", {"status": "Confirmed"}
        yield "PUT", f"{before}{path}{after}", {"status": "Ordered"}
        yield "POST", f"{before}{path}/cancel{after}", None
        yield "POST", f"{before}{path}/cancel{after}", {"items": some, "note": "Too many."}
        yield "POST", f"{before}{path}/return{after}", {"items": some}
        yield "PATCH", f"{before}{path}{after}", {"external_reference": "a-1"}
        yield "PATCH", f"{before}{path}{after}", {"external_reference": "taken"}
        for policy in ("each", "all_or_nothing"):
            for more in ({}, {"version": 1}, {"version": 9}):
                moves = [{"id": order["id"], "status": "Confirmed", **more}]
                yield "PUT", f"{before}/orders:batch{after}", {"orders": moves, "error_policy": policy}


HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"If_Match": '"1"'},
    {"If_Match": '"9"'},
    {"If_Match": "*"},
    {"Idempotency_Key": "used"},
    {"If_Match": '"9"', "Idempotency_Key": "used"},
)


@pytest.mark.parametrize("needs_if_match", [False, True])
async def test_a_change_of_a_foreign_order_is_answered_as_if_there_were_none(
    settings: Settings, product: int, needs_if_match: bool
) -> None:
    strict = settings.model_copy(update={"orders_require_if_match": needs_if_match})
    async with counter(strict) as shop:
        foreign = await placed(shop, APP, product, customer=43, external_reference="taken")
        own = await placed(shop, WEB, product)
        missing = {**foreign, "id": str(uuid4())}
        some = {"items": [{"id": own["items"][0]["id"], "quantity": 1}]}
        for who in (WEB, ANNA):
            used = await shop.ask(
                who, "POST", f"/orders/{own['id']}/cancel", some, If_Match="*", Idempotency_Key="used"
            )
            assert used.status == 200
        seen: set[int] = set()
        for about_foreign, about_missing in zip(requests_about(foreign), requests_about(missing), strict=True):
            for headers in HEADERS:
                for who in (WEB, ANNA) if "/cancel" in about_foreign[1] else (WEB,):
                    told = await shop.ask(who, *about_foreign, **headers)
                    expected = await shop.ask(who, *about_missing, **headers)
                    assert nameless(told, foreign) == nameless(expected, missing), (who.name, about_foreign, headers)
                    seen.add(told.status)
        assert seen == ({200, 404, 409, 422, 428} if needs_if_match else {200, 404, 409, 422})
        as_it_is = await shop.ask(ADMIN, "GET", f"/orders/{foreign['id']}")
        assert as_it_is.body == foreign


async def test_a_change_does_not_wait_for_the_lock_of_a_foreign_order(
    shop: Counter, product: int, settings: Settings
) -> None:
    """Waiting would tell that there is one."""
    foreign, own = await placed(shop, APP, product, customer=43), await placed(shop, WEB, product)
    move, moves = {"status": "Paid"}, [{"id": one["id"], "status": "Paid"} for one in (foreign, own)]
    with contextlib.closing(connect(settings.database_url or "")) as other:
        other.autocommit = False
        ask(other, "SELECT 1 FROM orders WHERE id = %s FOR UPDATE", (foreign["id"],))
        for before in ("/dry-run", ""):
            assert (await shop.ask(WEB, "PUT", f"{before}/orders/{foreign['id']}", move)).status == 404
            assert (await shop.ask(ANNA, "POST", f"{before}/orders/{foreign['id']}/cancel")).status == 404
            told = await shop.ask(WEB, "PUT", f"{before}/orders:batch", {"orders": moves})
            assert [result["status"] for result in told.body["results"]] == [404, 200]


def nameless(told: Told, order: dict[str, Any]) -> tuple[int, str, dict[str, str]]:
    headers = {name: value for name, value in told.headers.items() if name != "x-request-id"}
    return told.status, json.dumps(told.body).replace(order["id"], "ID"), headers


async def test_of_many_moves_only_the_own_orders_are_moved(shop: Counter, product: int) -> None:
    own, foreign = await placed(shop, WEB, product), await placed(shop, APP, product)
    moves = [{"id": one["id"], "status": "Confirmed"} for one in (foreign, own)]
    told = await shop.ask(WEB, "PUT", "/orders:batch", {"orders": moves})
    assert [result["status"] for result in told.body["results"]] == [404, 200]
    assert told.body["results"][0]["problem"]["code"] == "order_not_found"
    all_of_them = {"orders": [{**move, "status": "Shipped"} for move in moves], "error_policy": "all_or_nothing"}
    for address in ("/orders:batch", "/dry-run/orders:batch"):
        told = await shop.ask(WEB, "PUT", address, all_of_them)
        assert (told.status, [e["code"] for e in told.body["errors"]]) == (409, ["order_not_found"])
    assert await statuses(shop, own, foreign) == ["Confirmed", "Ordered"]


async def statuses(shop: Counter, *orders: dict[str, Any]) -> list[str]:
    return [(await shop.ask(ADMIN, "GET", f"/orders/{order['id']}")).body["status"] for order in orders]


async def test_a_customer_cancels_own_orders_whole_or_in_part(shop: Counter, product: int, sandbox: Sandbox) -> None:
    order = await placed(shop, ANNA, product)
    path = f"/orders/{order['id']}/cancel"
    part = {"items": [{"id": order["items"][0]["id"], "quantity": 1}], "reason": "customer"}
    assert (await shop.ask(ANNA, "POST", f"/dry-run{path}", part)).body["order"]["items"][0]["quantity"] == 2
    assert (await shop.ask(ANNA, "POST", path, part)).body["items"][0]["quantity"] == 2
    for address in (path, f"/dry-run{path}"):
        told = await shop.ask(ANNA, "POST", address, {"restock": False})
        assert (told.status, told.code, told.body["required_scope"]) == (403, "not_permitted", "orders:change")
        told = await shop.ask(ANNA, "POST", address, X_Actor="boss")
        assert (told.status, told.code) == (403, "not_permitted")
        assert (await shop.ask(BERT, "POST", address)).status == 404
    assert (await shop.ask(ANNA, "POST", path)).body["status"] == "Cancelled"
    shipped = await placed(shop, ANNA, product)
    await shop.ask(ADMIN, "PUT", f"/orders/{shipped['id']}", {"status": "Shipped"})
    assert (await shop.ask(ANNA, "POST", f"/orders/{shipped['id']}/cancel")).code == "status_not_allowed"
    events = (await shop.ask(ADMIN, "GET", f"/orders/{order['id']}/events")).body["events"]
    assert [event["actor"] for event in events] == ["customer:42"] * 3


async def test_a_private_note_is_shown_to_nobody_who_may_not_read_it(shop: Counter, product: int) -> None:
    notes = {"public": "Ring twice.", "private": "a secret"}
    order = await placed(shop, APP, product, notes=notes)
    assert order["notes"] == notes
    path, part = f"/orders/{order['id']}", {"items": [{"id": order["items"][0]["id"], "quantity": 1}]}
    moves = {"orders": [{"id": order["id"], "status": "Processing"}]}
    for who, method, address, body in (
        (BLIND, "PUT", path, {"status": "Confirmed"}),
        (BLIND, "PUT", path, {"status": "Confirmed"}),
        (BLIND, "PATCH", path, {"notes": {"public": "Ring once."}}),
        (BLIND, "PUT", "/orders:batch", moves),
        (BLIND, "PUT", "/orders:batch", {**moves, "error_policy": "all_or_nothing"}),
        (ANNA, "POST", f"{path}/cancel", part),
        (ANNA, "POST", f"{path}/cancel", None),
    ):
        for before in ("/dry-run", ""):
            told = await shop.ask(who, method, f"{before}{address}", body)
            assert told.status == 200, told
            assert "secret" not in json.dumps(told.body)
            assert '"private": null' in json.dumps(told.body)
    assert (await shop.ask(ADMIN, "GET", path)).body["notes"]["private"] == "a secret"


@pytest.mark.parametrize("patch", [{"notes": None}, {"notes": {"private": None}}, {"notes": {"private": "a secret"}}])
async def test_who_may_not_read_private_notes_may_not_write_them(
    shop: Counter, product: int, patch: dict[str, Any]
) -> None:
    """A patch of the same text changes nothing, and so tells the text."""
    order = await placed(shop, APP, product, notes={"private": "a secret"})
    for before in ("/dry-run", ""):
        told = await shop.ask(BLIND, "PATCH", f"{before}/orders/{order['id']}", patch)
        assert (told.status, told.code, told.body["required_scope"]) == (403, "not_permitted", "customers:read")
    body = {"items": [{"product_id": product, "quantity": 1}], "notes": {"private": "x"}}
    for who, address, asked in (
        (ANNA, "/orders/42", body),
        (ANNA, "/dry-run/customers/42/orders", body),
        (BLIND, "/orders/42", body),
        (BLIND, "/orders:batch", {"orders": [{"customer_id": 42, **body}]}),
    ):
        told = await shop.ask(who, "POST", address, asked)
        assert (told.status, told.code, told.body["required_scope"]) == (403, "not_permitted", "customers:read")
    allowed = await shop.ask(ANNA, "POST", "/orders/42", {**body, "notes": {"public": "Hello.", "private": None}})
    assert allowed.status == 201


async def test_an_order_for_another_customer_is_answered_as_one_for_none(
    shop: Counter, product: int, settings: Settings
) -> None:
    await placed(shop, ADMIN, product, customer=43)
    body = {"items": [{"product_id": product, "quantity": 1}]}
    for before in ("", "/dry-run"):
        for form in ("/orders/{}", "/customers/{}/orders"):
            for asked in (body, None):
                for customer in ("43", "44"):  # one who has orders, and one who has not
                    address = f"{before}{form}"
                    told = await shop.ask(ANNA, "POST", address.format(customer), asked, Idempotency_Key="k")
                    none = await shop.ask(ANNA, "POST", address.format("0"), asked, Idempotency_Key="k")
                    assert (told.status, told.code) == (404, "not_found")
                    assert told.body == json.loads(
                        json.dumps(none.body).replace("'0'", f"'{customer}'").replace("/0", f"/{customer}")
                    )
    assert execute(settings.database_url or "", "SELECT count(*) FROM idempotency_keys") == [(0,)]
    assert (await shop.ask(ANNA, "POST", "/orders/42", body)).status == 201
    assert (await shop.ask(ANNA, "POST", "/customers/42/orders", body)).status == 201
    many = {"orders": [{"customer_id": customer, **body} for customer in (42, 43)]}
    for before in ("", "/dry-run"):  # access lets no customer come here; if it did, nothing would be ordered for others
        told = await shop.ask(ANNA, "POST", f"{before}/orders:batch", many)
        assert [result["status"] for result in told.body["results"]] == [201, 404]


async def test_the_channel_is_the_keys_or_the_bodys(shop: Counter, product: int, settings: Settings) -> None:
    body = {"items": [{"product_id": product, "quantity": 1}]}
    for who, named, kept in (
        (WEB, None, "web"),
        (WEB, "web", "web"),
        (ADMIN, None, None),
        (ADMIN, "shop_2-b", "shop_2-b"),
        (LOCAL, "web", "web"),
        (ANNA, None, None),
    ):
        asked = body if named is None else {**body, "channel": named}
        preview = await shop.ask(who, "POST", "/dry-run/orders/42", asked)
        told = await shop.ask(who, "POST", "/orders/42", asked)
        assert (preview.body["order"]["channel"], told.body["channel"]) == (kept, kept)
        if not who.is_customer:
            many = {"orders": [{"customer_id": 42, **asked}]}
            preview = await shop.ask(who, "POST", "/dry-run/orders:batch", many)
            told = await shop.ask(who, "POST", "/orders:batch", many)
            assert preview.body["results"][0]["order"]["channel"] == kept
            assert told.body["results"][0]["order"]["channel"] == kept
    for before in ("", "/dry-run"):
        told = await shop.ask(WEB, "POST", f"{before}/orders/42", {**body, "channel": "app"})
        assert (told.status, told.body["errors"][0]["pointer"]) == (422, "#/channel")
        many = {"orders": [{"customer_id": 42, **body}, {"customer_id": 42, **body, "channel": "app"}]}
        told = await shop.ask(WEB, "POST", f"{before}/orders:batch", many)
        assert (told.status, told.body["errors"][0]["pointer"]) == (422, "#/orders/1/channel")
        told = await shop.ask(ANNA, "POST", f"{before}/orders/42", {**body, "channel": "web"})
        assert (told.status, told.code, told.body["required_scope"]) == (403, "not_permitted", "orders:place")
        for bad in ("", "Web", "a b", "a\n", "x" * 65, 7):
            told = await shop.ask(ADMIN, "POST", f"{before}/orders/42", {**body, "channel": bad})
            assert (told.status, told.body["errors"][0]["pointer"]) == (422, "#/channel")
    order = await placed(shop, WEB, product)
    told = await shop.ask(ADMIN, "PATCH", f"/orders/{order['id']}", {"channel": "app"})
    assert told.status == 422


async def test_the_order_of_a_cart_gets_the_channel_and_is_handed_out_to_its_channel_only(
    shop: Counter, product: int, sandbox: Sandbox
) -> None:
    sandbox.fill_cart(42, (product, 2))
    first = await shop.ask(WEB, "POST", "/orders/42")
    assert (first.status, first.body["channel"]) == (201, "web")
    assert (await shop.ask(WEB, "POST", "/orders/42")).body == first.body
    for before in ("", "/dry-run"):
        told = await shop.ask(APP, "POST", f"{before}/orders/42", Idempotency_Key="app-1")
        assert (told.status, told.code) == (404, "cart_not_found")
    assert (await shop.ask(ANNA, "POST", "/orders/42")).body["id"] == first.body["id"]
    assert (await shop.ask(BERT, "POST", "/orders/43")).code == "cart_not_found"


async def test_an_active_cart_that_a_foreign_order_has_is_ordered_no_second_time(
    shop: Counter, product: int, sandbox: Sandbox, settings: Settings
) -> None:
    """As after a crash: the cart's order is placed, and the cart is not closed yet."""
    order = await placed(shop, APP, product, notes={"private": "a secret"})
    cart = sandbox.fill_cart(42, (product, 2))
    moved = "UPDATE orders SET cart_id = %s WHERE id = %s RETURNING 1"
    assert execute(settings.database_url or "", moved, (cart, order["id"])) == [(1,)]
    for before in ("", "/dry-run"):
        for headers in ({}, {"Idempotency_Key": f"web{before}"}):
            told = await shop.ask(WEB, "POST", f"{before}/orders/42", **headers)
            assert (told.status, told.code) == (404, "cart_not_found")
    repeated = await shop.ask(ANNA, "POST", "/orders/42", Idempotency_Key="anna-1")
    assert (repeated.status, repeated.body["id"]) == (201, order["id"])
    assert repeated.body["notes"]["private"] is None
    replayed = await shop.ask(ANNA, "POST", "/orders/42", Idempotency_Key="anna-1")
    assert (replayed.body, replayed.headers["idempotent-replayed"]) == (repeated.body, "true")
    assert (await shop.ask(APP, "POST", "/orders/42")).body["notes"]["private"] == "a secret"


async def test_a_second_click_on_a_closed_cart_shows_no_private_note(
    shop: Counter, product: int, sandbox: Sandbox
) -> None:
    sandbox.fill_cart(42, (product, 2))
    order = (await shop.ask(WEB, "POST", "/orders/42", {"notes": {"private": "a secret"}})).body
    for before in ("", "/dry-run"):
        for headers in ({}, {"Idempotency_Key": "again"}):
            told = await shop.ask(ANNA, "POST", f"{before}/orders/42", **headers)
            assert "secret" not in json.dumps(told.body)
            assert (told.body["order"] if before else told.body)["id"] == order["id"]


PLACING_OR_CHANGING = (ADMIN, WEB, APP, LOCAL)


async def test_a_key_is_its_owners_and_its_operations(shop: Counter, product: int, settings: Settings) -> None:
    """Four principals and a customer use one key for placing, cancelling and taking back: none meets another's."""
    key, body = {"Idempotency_Key": "k"}, {"items": [{"product_id": product, "quantity": 3}]}
    orders = [(who, await shop.ask(who, "POST", "/orders/42", body, **key)) for who in (*PLACING_OR_CHANGING, ANNA)]
    assert [order.status for _, order in orders] == [201] * 5
    assert len({order.body["id"] for _, order in orders}) == 5
    for who, order in orders:
        again = await shop.ask(who, "POST", "/orders/42", body, **key)
        assert (again.body, again.headers["idempotent-replayed"]) == (order.body, "true")
        one = {"items": [{"id": order.body["items"][0]["id"], "quantity": 1}]}
        cancelled = [await shop.ask(who, "POST", f"/orders/{order.body['id']}/cancel", one, **key) for _ in range(2)]
        assert [told.body["items"][0]["quantity"] for told in cancelled] == [2, 2]
        assert "idempotent-replayed" in cancelled[1].headers
        if not who.is_customer:
            await shop.ask(who, "PUT", f"/orders/{order.body['id']}", {"status": "Shipped"})
            back = [await shop.ask(who, "POST", f"/orders/{order.body['id']}/return", one, **key) for _ in range(2)]
            assert [told.body["items"][0]["returned"] for told in back] == [1, 1]
    other = {"items": [{"product_id": product, "quantity": 4}]}
    for who in (*PLACING_OR_CHANGING, ANNA):
        for address in ("/orders/42", "/dry-run/orders/42"):
            assert (await shop.ask(who, "POST", address, other, **key)).code == "key_reused"
    stored = {row for (row,) in execute(settings.database_url or "", "SELECT key FROM idempotency_keys")}
    owners = [who.owner for who in (ADMIN, WEB, APP)]
    assert stored == {
        "k",
        "local cancel k",
        "local return k",
        "customer:42 place k",
        "customer:42 cancel k",
        *(f"{owner} {operation} k" for owner in owners for operation in ("place", "cancel", "return")),
    }


async def test_keys_of_many_orders_are_their_owners_too(shop: Counter, product: int) -> None:
    entry = {"customer_id": 42, "items": [{"product_id": product, "quantity": 1}], "idempotency_key": "bulk"}
    ids = set()
    for who in PLACING_OR_CHANGING:
        first, again = [await shop.ask(who, "POST", "/orders:batch", {"orders": [entry]}) for _ in range(2)]
        assert [told.body["results"][0].get("replayed") for told in (first, again)] == [None, True]
        single = await shop.ask(
            who, "POST", "/orders/42", {"items": entry["items"]}, Idempotency_Key=str(entry["idempotency_key"])
        )
        assert single.body == first.body["results"][0]["order"]
        ids.add(single.body["id"])
    assert len(ids) == len(PLACING_OR_CHANGING)


async def test_keys_from_before_the_upgrade_go_on(shop: Counter, product: int, settings: Settings) -> None:
    """An earlier release has stored the keys of local requests as they came, for changes, too."""
    dsn, body = settings.database_url or "", {"items": [{"product_id": product, "quantity": 3}]}
    order = await shop.ask(LOCAL, "POST", "/orders/42", body, Idempotency_Key="p")
    one = {"items": [{"id": order.body["items"][0]["id"], "quantity": 1}]}
    path = f"/orders/{order.body['id']}/cancel"
    first = await shop.ask(LOCAL, "POST", path, one, Idempotency_Key="c")
    assert execute(dsn, "UPDATE idempotency_keys SET key = 'c' WHERE key = 'local cancel c' RETURNING 1") == [(1,)]
    for before in ("", "/dry-run"):
        again = await shop.ask(LOCAL, "POST", f"{before}{path}", one, Idempotency_Key="c")
        assert "idempotent-replayed" in again.headers
        assert (again.body["order"] if before else again.body) == first.body
    other = await shop.ask(LOCAL, "POST", path, {**one, "note": "Another."}, Idempotency_Key="c")
    assert (other.status, other.body["items"][0]["quantity"]) == (200, 1)  # another operation's key, for all it knows
    of_a_key = await shop.ask(WEB, "POST", path, one, Idempotency_Key="c")
    assert of_a_key.status == 404
    of_admin = await shop.ask(ADMIN, "POST", path, one, Idempotency_Key="c")
    assert "idempotent-replayed" not in of_admin.headers


def test_the_fingerprint_of_a_request_without_a_channel_is_that_of_earlier_releases() -> None:
    cart, items = [CheckoutRequest(SEES_EVERYTHING, 42, lines) for lines in (None, [Line(7, 2), Line(3, 1)])]
    assert cart.fingerprint.hex() == "ac56aa17d45e3b4a499d366028ab2b2393de956e3c5446b1a555fc875b8b5404"
    assert items.fingerprint.hex() == "517141bdec079298f8d865ff6065342c535e633a342ba8b029df9a9fde67ea52"
    assert dataclasses.replace(cart, channel="web").fingerprint == cart.fingerprint  # the key's channel
    web, app = [dataclasses.replace(cart, channel=name, named_channel=name) for name in ("web", "app")]
    assert len({cart.fingerprint, web.fingerprint, app.fingerprint}) == 3


client_keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
owners = st.one_of(st.just(""), st.sampled_from(["local", "key:a", "key:a place"]), st.text(max_size=20))
uses = st.tuples(owners, st.sampled_from(Keyed), client_keys)


@given(uses, uses)
def test_no_two_uses_are_stored_as_one_key(one: tuple[str, Keyed, str], other: tuple[str, Keyed, str]) -> None:
    (owner, operation, key), (other_owner, other_operation, other_key) = one, other
    if {owner, other_owner} != {"", "local"} and one != other:  # no owner is called `local`
        stored = ClientKey(owner, key).stored(operation)
        assert stored != ClientKey(other_owner, other_key).stored(other_operation)


async def test_the_order_with_a_reference_is_named_only_to_who_may_see_it(shop: Counter, product: int) -> None:
    taken = {"external_reference": "ref-1"}
    first = await placed(shop, WEB, product, **taken)
    body = {"items": [{"product_id": product, "quantity": 1}], **taken}
    for who, customer, is_named in (
        (WEB, 42, True),
        (ADMIN, 42, True),
        (LOCAL, 42, True),
        (APP, 42, False),
        (WEB, 43, False),
        (ADMIN, 43, False),
    ):
        for before in ("", "/dry-run"):
            told = await shop.ask(who, "POST", f"{before}/orders/{customer}", body)
            assert (told.status, told.code) == (409, "external_reference_taken")
            assert told.body.get("order_id") == (first["id"] if is_named else None)
            assert (first["id"] in json.dumps(told.body)) == is_named
            many = {"orders": [{"customer_id": customer, **body}]}
            told = await shop.ask(who, "POST", f"{before}/orders:batch", many)
            assert (first["id"] in json.dumps(told.body)) == is_named
    for who, customer, is_named in ((WEB, 42, True), (ADMIN, 42, True), (APP, 42, False), (ADMIN, 43, False)):
        order = await placed(shop, who, product, customer)
        for before in ("", "/dry-run"):
            told = await shop.ask(who, "PATCH", f"{before}/orders/{order['id']}", taken)
            assert (told.status, told.code) == (409, "external_reference_taken")
            assert told.body.get("order_id") == (first["id"] if is_named else None)
