"""What an adversary tried. Each test says what has to hold; those that fail are holes."""

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orders.access.granting import Caller, Grant
from orders.access.keys import id_of
from orders.access.keys_sql import create_key
from orders.postgres.database import opened
from orders.principal import ALL_SCOPES, Scope
from tests.conftest import Http, Sandbox, execute
from tests.e2e.conftest import Start
from tests.e2e.test_bola import BODIES, MARK, OWNER, STRANGER, World, lasting_world, world  # noqa: F401
from tests.e2e.test_keys import bearer, key_in
from tests.made_up_issuer import customer

PATCH = {"Content-Type": "application/merge-patch+json"}


def test_a_customer_learns_nothing_of_the_references_of_others(world: World) -> None:  # noqa: F811
    """A dry run costs nothing: 409 or 200 tells whether somebody else's order has a reference."""
    anna = world.token(STRANGER)
    url = f"{world.service.url}/orders/{STRANGER}?dry_run=true"
    taken, free = world.victim["external_reference"], "never-given-1"
    told = [
        world.service.http.post(url, {**BODIES["place_order"], "external_reference": reference}, headers=anna)
        for reference in (taken, free)
    ]
    assert told[0].status == told[1].status, [(t.status, t.body.get("detail")) for t in told]


def test_a_customer_does_not_take_the_shops_next_reference(world: World) -> None:  # noqa: F811
    number = f"web-2026-{time.time_ns()}"
    squatted = world.service.http.post(
        f"{world.service.url}/orders/{STRANGER}",
        {**BODIES["place_order"], "external_reference": number},
        headers=world.token(STRANGER),
    )
    ours = world.service.http.post(
        f"{world.service.url}/orders/{OWNER}",
        {**BODIES["place_order"], "external_reference": number},
        headers=world.admin,
    )
    assert ours.status == 201, (squatted.status, ours.body)


def test_the_length_of_a_private_note_is_not_told(world: World) -> None:  # noqa: F811
    """`What is attached must be at most …` depends on the note that a key without customers:read may not see."""
    order = world.place()
    url = f"{world.service.url}/orders/{order['id']}"
    secret = "x" * 1234
    patched = world.service.http.send("PATCH", url, {"notes": {"private": secret}}, headers={**world.admin, **PATCH})
    assert patched.status == 200
    clerk = {**world.key(Scope.ORDERS_CHANGE), **PATCH}

    def is_refused(size: int) -> bool:
        wide, narrow = divmod(size, 4)
        body = {"metadata": {"mark": None}, "notes": {"public": "\U0001f600" * wide + "a" * narrow}}
        body["metadata"] |= {f"k{n}": "\U0001f600" * 500 for n in range(4)}
        reply = world.service.http.send("PATCH", f"{url}?dry_run=true", body, headers=clerk)
        assert reply.status in (200, 422), reply
        return reply.status == 422

    low, high = 0, 15990
    if not is_refused(high):
        pytest.skip("it can't be reached so")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_refused(middle) else (middle, high)
    longer = {"notes": {"private": "x" * 3000}}
    assert world.service.http.send("PATCH", url, longer, headers={**world.admin, **PATCH}).status == 200
    assert not is_refused(low), f"the private note has {24 * 1024 - low} bytes less the rest"


def test_nobody_makes_a_key_that_lasts_longer_than_their_own(world: World) -> None:  # noqa: F811
    url = f"{world.service.url}/keys"
    for_an_hour = bearer(key_in(world.dsn, *ALL_SCOPES, lasts=timedelta(hours=1)))
    made = world.service.http.post(url, {"name": "for ever", "as": "admin"}, headers=for_an_hour)
    assert made.status == 403, made.body["expires_at"]


def test_nobody_makes_a_key_that_may_ask_faster_than_their_own(world: World) -> None:  # noqa: F811
    with opened(world.dsn) as connection:
        slow = create_key(connection, Grant("slow", ALL_SCOPES, None, 5), Caller("cli"))[0]
    made = world.service.http.post(f"{world.service.url}/keys", {"name": "fast", "as": "admin"}, headers=bearer(slow))
    assert made.status == 403, made.body["rate"]


def test_a_key_does_not_pass_for_another_by_its_name(world: World) -> None:  # noqa: F811
    """The history says `key:NAME`: whoever makes keys makes one of the same name."""
    with opened(world.dsn) as connection:
        victim, victims = create_key(connection, Grant("till", frozenset({Scope.ORDERS_CHANGE})), Caller("cli"))
    intern = world.key(Scope.ACCESS_MANAGE, Scope.ORDERS_CHANGE)
    made = world.service.http.post(
        f"{world.service.url}/keys", {"name": "till", "scopes": ["orders:change"]}, headers=intern
    )
    order = world.place()
    actors = []
    for key in (bearer(victim), bearer(made.body["key"])):
        path = f"{world.service.url}/orders/{order['id']}"
        reply = world.service.http.send("PATCH", path, {"metadata": {"n": len(actors)}}, headers={**key, **PATCH})
        assert reply.status == 200
        events = world.service.http.get(f"{path}/events", headers=world.admin).body["events"]
        actors.append(events[-1]["actor"])
    assert actors[0] != actors[1], actors


def test_a_customer_without_an_id_is_no_staff(world: World) -> None:  # noqa: F811
    """An issuer that serves customers gives a scope to whoever asks, also to an account that has no ID yet."""
    claims: dict[str, Any] = {"exp": int(time.time()) + 600, "scope": "openid access:manage", "sub": "auth0|fresh"}
    for customer_id in (None, ...):
        fresh = bearer(customer(**claims, customer_id=customer_id))
        reply = world.service.get("/keys", headers=fresh)
        assert reply.status in (401, 403), reply.body



def answered(port: int, text: str) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        peer.sendall(text.replace("\n", "\r\n").encode())
        return int(peer.recv(65536).split()[1])


PROXIES = {
    "nginx 1.29.7 and later, `proxy_pass` alone": "GET /orders HTTP/1.1\nHost: 127.0.0.1:{port}\nUser-Agent: x\n\n",
    "nginx before, with the usual lines for WebSockets": "GET /orders HTTP/1.1\nHost: 127.0.0.1:{port}\n"
    "Connection: close\n\n",
    "HAProxy, `mode http` alone; the client chose the Host": "GET /orders HTTP/1.1\nHost: localhost\n\n",
    "Vite's server.proxy with changeOrigin, a browser of the network": "POST /orders/42 HTTP/1.1\n"
    "Host: localhost:{port}\nOrigin: http://192.168.1.5:5173\nReferer: http://192.168.1.5:5173/\n"
    "Sec-Fetch-Site: same-origin\nContent-Length: 0\nConnection: close\n\n",
}
"""What a proxy on this machine sends for a client elsewhere, by its default configuration."""


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_on_this_machine_with_its_defaults_lets_nobody_in(proxy: str, start: Start) -> None:
    port = int(start().url.rpartition(":")[2])
    assert answered(port, PROXIES[proxy].format(port=port)) == 401


@pytest.mark.parametrize(
    "lines",
    [
        "Host: localhost:80@evil.example",
        "Host: [::1]evil.example",
        "Host: localhost\nSec-Fetch-Site: cross-site\nSec-Fetch-Site: none",
    ],
)
def test_what_is_no_name_of_this_machine_is_read_as_none(lines: str, start: Start) -> None:
    port = int(start().url.rpartition(":")[2])
    assert answered(port, f"GET /orders HTTP/1.1\n{lines}\nConnection: close\n\n") != 200


def test_a_key_that_was_sent_as_its_id_is_not_in_the_log(start: Start, dsn: str, tmp_path: Path) -> None:
    """`curl -X DELETE /keys/$KEY` is an easy mistake, and ORDERS_ACCESS_LOG writes the path."""
    key, log = key_in(dsn, *ALL_SCOPES), tmp_path / "log.txt"
    with log.open("w") as stderr:
        service = start(log=stderr, orders_access="closed", orders_access_log="true")
        for method, path in (("DELETE", f"/keys/{key}"), ("POST", f"/keys/{key}/rotate"), ("GET", f"/orders/{key}")):
            reply = service.http.send(method, f"{service.url}{path}", headers=bearer(key))
            assert reply.status == 404
    assert key[:60] not in log.read_text()


def test_an_email_that_the_issuer_calls_unverified_is_no_name(world: World) -> None:  # noqa: F811
    order = world.place()
    carl = {"exp": int(time.time()) + 600, "customer_id": ..., "scope": "orders:change", "sub": "carl"}
    for n, said in enumerate((False, "false")):
        token = bearer(customer(**carl, email="ceo@shop.example", email_verified=said))
        path = f"{world.service.url}/orders/{order['id']}"
        reply = world.service.http.send("PATCH", path, {"metadata": {"n": n}}, headers={**token, **PATCH})
        assert reply.status == 200, reply
        events = world.service.http.get(f"{path}/events", headers=world.admin).body["events"]
        assert events[-1]["actor"] == "staff:carl", said


def test_a_key_ends_no_key_that_may_more(world: World) -> None:  # noqa: F811
    admin = key_in(world.dsn, *ALL_SCOPES)
    reply = world.service.http.send(
        "DELETE", f"{world.service.url}/keys/{id_of(admin)}", headers=world.key(Scope.ACCESS_MANAGE)
    )
    assert reply.status == 403


def test_a_key_that_was_replaced_does_not_take_its_successor_over(world: World) -> None:  # noqa: F811
    """A leaked key is rotated. For 24 h (the default) whoever has it ends the new key, and gets one of their own."""
    leaked = key_in(world.dsn, *ALL_SCOPES)
    url = f"{world.service.url}/keys"
    new = world.service.http.post(f"{url}/{id_of(leaked)}/rotate", {}, headers=world.admin).body["key"]
    stolen = world.service.http.post(f"{url}/{id_of(new)}/rotate", {"keep_old_for_h": 0}, headers=bearer(leaked))
    assert world.service.get("/orders?limit=1", headers=bearer(new)).status == 200, "the owner is locked out"
    assert stolen.status == 403, stolen.body["id"]


def test_a_key_that_only_places_reads_no_order_of_another(world: World, sandbox: Sandbox) -> None:  # noqa: F811
    """The second click on a cart is answered with the order that somebody else placed, as it is by now."""
    sandbox.fill_cart(78, (sandbox.product(1000), 1))
    url = f"{world.service.url}/orders/78"
    placed = world.service.http.post(url, {"metadata": {"mark": MARK}, "notes": {"public": MARK}}, headers=world.admin)
    assert placed.status == 201
    only_places = world.key(Scope.ORDERS_PLACE)
    assert world.service.get(f"/orders/{placed.body['id']}", headers=only_places).status == 403
    for dry_run in ("?dry_run=true", ""):
        again = world.service.http.post(f"{url}{dry_run}", {}, headers=only_places)
        assert MARK not in json.dumps(again.body), (dry_run, again)


def test_a_customer_can_not_count_the_orders_of_others(world: World) -> None:  # noqa: F811
    """`number` and the lines' `id` count through the whole shop."""
    url, who = f"{world.service.url}/orders/{STRANGER}", world.token(STRANGER)
    spans = []
    for others in (0, 7):
        first = world.service.http.post(url, BODIES["place_order"], headers=who).body
        for _ in range(others):
            world.place(OWNER, "web", mark="own")
        last = world.service.http.post(url, BODIES["place_order"], headers=who).body
        spans.append((last["number"] - first["number"], last["items"][0]["id"] - first["items"][0]["id"]))
    assert spans[0] == spans[1], spans


def patiently(world: World, path: str, who: dict[str, str]) -> Any:  # noqa: F811
    """The answer, once the rate allows it."""
    while (reply := world.service.get(path, headers=who)).status == 429:
        time.sleep(float(reply.headers["retry-after"]))
    return reply


# What held ------------------------------------------------------------------------------------------------------------


def test_held_names_and_channels_have_no_line_end(world: World) -> None:  # noqa: F811
    for body in ({"name": "till\n", "as": "admin"}, {"name": "till", "as": "admin", "channel": "web\n"},
                 {"name": "till/anna", "as": "admin"}, {"name": "t", "scopes": ["orders:read "]}):
        assert world.service.http.post(f"{world.service.url}/keys", body, headers=world.admin).status == 422, body


def test_held_filters_cursors_and_totals_of_strangers(world: World) -> None:  # noqa: F811
    victim = world.victim
    anna, app = world.token(STRANGER), world.key(*ALL_SCOPES, channel="app")
    for _ in range(3):
        world.place(STRANGER, "app", mark="own")
    for who, field, own in ((anna, "customer_id", STRANGER), (app, "channel", "app")):
        for query in (
            "", f"number={victim['number']}", f"external_reference={victim['external_reference']}",
            f"metadata=mark={MARK}", f"status={victim['status']}", "status=Nonsense", "channel=web", "sort=-total",
            f"total_gte={victim['total']}", f"product_id={victim['items'][0]['product_id']}", "sort=updated_at",
            f"customer_id={OWNER}", "created_at_gte=2020-01-01", "status=pending&status=failed", "sort=number",
        ):
            for path in ("/orders", f"/customers/{OWNER}/orders", f"/orders/{OWNER}/"):
                reply = patiently(world, f"{path}?include_total=true&limit=1&{query}", who)
                assert reply.status in (200, 404, 422), (path, query, reply)
                text = json.dumps(reply.body)
                if reply.status == 200:
                    assert all(o[field] == own for o in reply.body["orders"]), (path, query)
                    assert str(victim["id"]) not in text
                    if "total_count" in reply.body:
                        (seen,) = execute(world.dsn, f"SELECT count(*) FROM orders WHERE {field} = %s", (own,))
                        assert reply.body["total_count"] <= seen[0]
                    following = reply.body["next"]
                    if following:
                        page = patiently(world, following, who)
                        assert all(o[field] == own for o in page.body["orders"])
                        stolen = patiently(world, following, world.token(OWNER))
                        assert STRANGER not in [o["customer_id"] for o in (stolen.body.get("orders") or [])]
        for path in ("", "?at=1", "?at=2026-11-28T08:00:00Z", "/events", "/events?after=1", "/", "?at=99"):
            assert patiently(world, f"/orders/{victim['id']}{path}", who).status == 404, path
        for path in (f"/orders/{victim['id'].upper()}", f"/orders/%{ord(victim['id'][0]):x}{victim['id'][1:]}"):
            assert patiently(world, path, who).status == 404


def test_held_bulk_of_own_and_foreign(world: World) -> None:  # noqa: F811
    app = world.key(*ALL_SCOPES, channel="app")
    own, missing = world.place(STRANGER, "app", mark="own"), "01a20aba-6e99-743f-8292-11e9cafb05ea"
    for dry in ("", "?dry_run=true"):
        for policy in ("each", "all_or_nothing"):
            told = []
            for other in (world.victim["id"], missing):
                for version in (None, 1, 99):
                    orders = [{"id": one, "status": "On Hold", "version": version} for one in (own["id"], other)]
                    body = {"orders": [orders[1], {**orders[0], "version": None}], "error_policy": policy}
                    reply = world.service.http.put(f"{world.service.url}/orders:batch{dry}", body, headers=app)
                    told.append(json.dumps(reply.body).replace(other, "ID"))
            assert set(told[:3]) == set(told[3:]) or policy == "each", told
    audit = world.service.get("/audit?action=orders_moved&limit=1", headers=world.admin).body["entries"]
    assert not audit or world.victim["id"] not in json.dumps(audit)


def test_held_carts_of_another_channel(world: World, sandbox: Sandbox) -> None:  # noqa: F811
    product = sandbox.product(1000)
    sandbox.fill_cart(77, (product, 1))
    web, app = (world.key(Scope.ORDERS_PLACE, channel=c) for c in ("web", "app"))
    url = f"{world.service.url}/orders/77"
    placed = world.service.http.post(url, {}, headers=web)
    assert placed.status == 201, placed
    for dry in ("", "?dry_run=true"):
        again = world.service.http.post(url + dry, {}, headers=app)
        assert (again.status, again.body["code"]) == (404, "cart_not_found"), again


def test_held_in_flight_is_given_back(world: World) -> None:  # noqa: F811
    port, anna = int(world.service.url.rpartition(":")[2]), world.token(STRANGER)["Authorization"]
    for n in range(30):
        with socket.create_connection(("127.0.0.1", port)) as peer:
            begin = f"POST /orders/{STRANGER} HTTP/1.1\r\nHost: x\r\nAuthorization: {anna}\r\n"
            more = ("Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n{",
                    "Content-Length: 300000\r\n\r\n", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz")
            peer.sendall((begin + more[n % 3]).encode())
            time.sleep(0.11)
    time.sleep(0.5)
    held = [world.service.get("/orders?limit=1", headers={"Authorization": anna}).status for _ in range(5)]
    assert held == [200] * 5
