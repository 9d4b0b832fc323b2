"""Every operation of the OpenAPI document with every kind of credential: nobody gets, or does, what is not theirs.

BOLA ("broken object level authorization") is the first of OWASP's list of holes in APIs.
"""

import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from orders.access.keys import id_of
from orders.postgres.database import opened
from orders.principal import ALL_SCOPES, IMPLIED, Scope
from tests.conftest import Http, Reply, Sandbox, ask, execute, migrated, wait_until
from tests.e2e.conftest import Service, listening, start_service, stop, usual
from tests.e2e.test_keys import bearer, key_in
from tests.made_up_issuer import AUDIENCE, ISSUER, RSA, customer, public, serving
from tests.receiver import SECRET, add_webhook

OWNER, STRANGER = 42, 43
MARK = "MARK-of-the-victim"
PRICE = 987_654_321
"""Price of the victim's product. No sum of anything else has its digits."""

PUBLIC = {"get_about", "get_health", "get_problems", "get_problem", "get_schemas", "get_schema"}
NEEDS: dict[Scope, set[str]] = {
    Scope.ORDERS_READ: {
        *("get_orders", "get_order", "get_order_events", "get_customer_orders", "export_csv", "export_ndjson"),
        "get_workflow",
    },
    Scope.REPORTS_READ: {"report_sales", "report_products", "report_statuses"},
    Scope.EVENTS_READ: {"get_events", "get_events_head", "stream_events"},
    Scope.ORDERS_PLACE: {"place_order", "place_customer_order", "place_orders"},
    Scope.ORDERS_CHANGE: {
        *("change_order_status", "change_order_statuses", "cancel_order", "return_order", "patch_order"),
    },
    Scope.WEBHOOKS_READ: {"list_webhooks", "get_webhook", "list_deliveries", "get_delivery"},
    Scope.WEBHOOKS_MANAGE: {
        *("create_webhook", "patch_webhook", "delete_webhook", "rotate_webhook_secret", "test_webhook"),
        *("redeliver", "replay_webhook"),
    },
    Scope.ACCESS_MANAGE: {"create_key", "list_keys", "rotate_key", "revoke_key", "list_audit"},
}
"""The operations by the scope that each needs, written down once more: a mistake in the service's table shows here."""

FOR_CUSTOMERS = {
    *("get_orders", "get_order", "get_order_events", "get_customer_orders", "get_workflow"),
    *("place_order", "place_customer_order", "cancel_order"),
}
BODIES: dict[str, Any] = {
    "place_order": {"items": [{"product_id": 1, "quantity": 1}]},
    "place_customer_order": {"items": [{"product_id": 1, "quantity": 1}]},
    "place_orders": {"orders": [{"customer_id": OWNER, "items": [{"product_id": 1, "quantity": 1}]}]},
    "change_order_status": {"status": "Shipped"},
    "change_order_statuses": {"orders": [{"id": "{order}", "status": "Shipped"}]},
    "cancel_order": {"reason": "customer"},
    "return_order": {},
    "patch_order": {"notes": {"public": "Changed."}},
    "create_key": {"name": "made", "scopes": ["access:manage"]},
    "rotate_key": {},
    "create_webhook": {"url": "https://1.1.1.1/hook"},
    "patch_webhook": {"concurrency": 3},
    "rotate_webhook_secret": {},
    "replay_webhook": {},
}
QUERIES = {"report_products": "?limit=100", "get_orders": "?limit=1000&include_total=true"}


def names(operation_id: str) -> str:
    """The operation that a preview previews."""
    return operation_id.removeprefix("preview_")


def scope_of(operation_id: str) -> Scope | None:
    """The scope that the operation needs. Fails for one that has no row."""
    name = names(operation_id)
    found = [scope for scope, operations in NEEDS.items() if name in operations]
    assert (len(found) == 1) != (name in PUBLIC), f"{operation_id} has no row, or two"
    return found[0] if found else None


@dataclass
class World:
    """A closed service, the order of a victim, and credentials of all kinds."""

    service: Service
    dsn: str
    admin: dict[str, str]
    product: int
    victim: dict[str, Any] = field(default_factory=dict)
    operations: dict[str, tuple[str, str]] = field(default_factory=dict)

    def key(self, *scopes: Scope, **more: Any) -> dict[str, str]:
        return bearer(key_in(self.dsn, *scopes, **more))

    def token(self, customer_id: int, **changed: Any) -> dict[str, str]:
        now = int(time.time())
        return bearer(customer(**{"exp": now + 600, "customer_id": customer_id, **changed}))

    def place(self, customer_id: int = OWNER, channel: str | None = "web", mark: str = MARK) -> dict[str, Any]:
        """An order, marked wherever somebody could read it."""
        body = {
            "items": [{"product_id": self.product, "quantity": 3}] if mark == MARK else BODIES["place_order"]["items"],
            "external_reference": f"{mark}-{next(_numbers)}",
            "metadata": {"mark": mark},
            "notes": {"public": mark, "private": f"private {mark}"},
            **({"channel": channel} if channel else {}),
        }
        path = f"{self.service.url}/orders/{customer_id}"
        reply = self.service.http.post(path, body, headers={**self.admin, "X-Actor": f"{mark}@shop.example"})
        assert reply.status == 201, reply
        return dict(reply.body)

    def webhook_about(self, order: dict[str, Any]) -> tuple[UUID, int]:
        """A new webhook of the order's channel, and a delivery to it about this order. Nothing is really sent."""
        with opened(self.dsn) as connection:
            webhook_id = add_webhook(
                connection, f"http://127.0.0.1:9/{MARK}", channel=order["channel"], description=MARK, position=2**62
            )
            ((delivery_id,),) = ask(
                connection,
                """INSERT INTO webhook_deliveries (webhook_id, type, position, order_id, number, state, last_reply)
                   VALUES (%s, 'order.placed', 1, %s, 1, 'failed', %s) RETURNING id""",
                (str(webhook_id), order["id"], MARK),
            )
            return webhook_id, delivery_id

    def ask(self, operation_id: str, order: dict[str, Any], headers: dict[str, str]) -> Reply:
        """The answer to the operation, asked about this order and its customer."""
        method, path = self.operations[operation_id]
        by_order = names(operation_id) not in ("place_order",)
        filled = path.replace("{customer_id}", str(order["customer_id"])).replace("{code}", "not_found")
        filled = filled.replace("{type}", "order.placed").replace("{version}", "1")
        if "/keys/" in path:
            filled = filled.replace("{id}", id_of(key_in(self.dsn, Scope.ACCESS_MANAGE)))
        if "/webhook" in path:
            webhook_id, delivery_id = self.webhook_about(order)
            filled = filled.replace("{id}", str(delivery_id if "/webhook-deliveries/" in path else webhook_id))
        filled = filled.replace("{id}", order["id"] if by_order else str(order["customer_id"]))
        body = BODIES.get(names(operation_id))
        text = json.dumps(body).replace("{order}", order["id"])
        kind = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        url = f"{self.service.url}{filled}{QUERIES.get(operation_id, '')}"
        if operation_id == "stream_events":
            return self._open_stream(f"{url}?after=0", headers)
        return self.service.http.send(method, url, body and json.loads(text), headers={**headers, **kind})

    def _open_stream(self, url: str, headers: dict[str, str]) -> Reply:
        """What a stream sends of all that has happened so far, as text; or its refusal."""
        head = self.service.get("/events/head", headers=self.admin).body["head"]
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                lines = list(iter(lambda: answer.readline().decode(), f"id: {head}\n"))
                lines += iter(lambda: answer.readline().decode(), "\n")
                return Reply(answer.status, "".join(lines), dict(answer.headers))
        except urllib.error.HTTPError as refused:
            with refused:
                named = {name.lower(): value for name, value in refused.headers.items()}
                return Reply(refused.status or 0, json.load(refused), named)


_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def lasting_world(postgres: str, http: Http, sandbox_processes: Sandbox) -> Iterator[World]:
    dsn = migrated(postgres, "orders_bola")
    with serving() as issuer:
        issuer.say("/keys", public(RSA))
        service = start_service(
            http,
            **usual(dsn, sandbox_processes),
            orders_access="closed",
            orders_secret=SECRET,
            orders_webhooks=1000,
            orders_jwt_issuer=ISSUER,
            orders_jwt_audience=AUDIENCE,
            orders_jwt_staff_claim="permissions",
            orders_jwt_jwks_url=f"{issuer.url}/keys",
        )
        listening(service)
        admin = bearer(key_in(dsn, *ALL_SCOPES))
        product = sandbox_processes.product(1_000_000, price=PRICE, name=f"product {MARK}")
        world = World(service, dsn, admin, product)
        document = service.get("/openapi.json").body
        world.operations = {
            operation["operationId"]: (method.upper(), path)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if method in ("get", "put", "post", "patch", "delete")
        }
        world.victim = world.place()
        BODIES["place_order"]["items"][0]["product_id"] = sandbox_processes.product(1_000_000)
        for name in ("place_customer_order",):
            BODIES[name] = BODIES["place_order"]
        BODIES["place_orders"]["orders"][0]["items"] = BODIES["place_order"]["items"]
        wait_until(
            lambda: service.get("/orders", headers=world.token(OWNER)).status == 200, "the issuer's keys are there"
        )
        yield world
        stop([service])


@pytest.fixture
def world(lasting_world: World, sandbox: Sandbox) -> Iterator[World]:
    before = _state(lasting_world)
    yield lasting_world
    assert _state(lasting_world) == before, "somebody changed the victim's order"


def _state(world: World) -> list[tuple[Any, ...]]:
    return execute(world.dsn, "SELECT version, status, public_note FROM orders WHERE id = %s", (world.victim["id"],))


def require_no_leak(world: World, reply: Reply, what: str) -> None:
    """Nothing of the victim's order is in the answer."""
    text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
    for secret in (MARK, str(PRICE), str(3 * PRICE)):
        assert secret not in text, f"{what}: {reply}"


def test_every_operation_has_a_row(lasting_world: World) -> None:
    for operation_id in lasting_world.operations:
        scope_of(operation_id)
    of_the_service = {names(operation_id) for operation_id in lasting_world.operations}
    assert of_the_service == PUBLIC.union(*NEEDS.values()), "a row without an operation"


@pytest.mark.parametrize("credential", ["none", "rubbish", "expired", "revoked", "expired token", "foreign token"])
def test_without_a_valid_credential_nothing_is_answered(world: World, credential: str) -> None:
    expired = key_in(world.dsn, *ALL_SCOPES, lasts=timedelta(seconds=-1))
    revoked = key_in(world.dsn, *ALL_SCOPES)
    execute(world.dsn, "UPDATE access_keys SET revoked_at = now() WHERE id = %s RETURNING id", (id_of(revoked),))
    headers = {
        "none": {},
        "rubbish": bearer("ord_rubbish"),
        "expired": bearer(expired),
        "revoked": bearer(revoked),
        "expired token": world.token(OWNER, exp=int(time.time()) - 120),
        "foreign token": world.token(OWNER, iss="https://elsewhere.example/"),
    }[credential]
    for operation_id in world.operations:
        reply = world.ask(operation_id, world.victim, headers)
        if scope_of(operation_id) is None:
            assert reply.status == 200, operation_id
        else:
            assert reply.status == 401, (operation_id, reply)
            assert reply.body["code"] == ("credential_required" if credential == "none" else "credential_invalid")
            assert reply.headers["www-authenticate"].startswith("Bearer")
        require_no_leak(world, reply, operation_id)


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_allows_its_operations_and_no_other(world: World, scope: Scope) -> None:
    key, holds = world.key(scope), {scope, IMPLIED.get(scope)}
    worn = world.place()
    for operation_id in world.operations:
        needed = scope_of(operation_id)
        reply = world.ask(operation_id, world.victim if needed not in holds else worn, key)
        if needed is None or needed in holds:
            assert reply.status not in (401, 403), (operation_id, reply)
        else:
            assert (reply.status, reply.body["required_scope"]) == (403, needed), (operation_id, reply)
            require_no_leak(world, reply, operation_id)
        if scope is not Scope.CUSTOMERS_READ:
            assert f"private {MARK}" not in json.dumps(reply.body), operation_id


def test_a_customer_may_do_what_customers_may_with_their_own_order(world: World) -> None:
    anna, own = world.token(OWNER), world.place()
    for operation_id in world.operations:
        reply = world.ask(operation_id, own if "cancel" in operation_id else world.victim, anna)
        if scope_of(operation_id) is None or names(operation_id) in FOR_CUSTOMERS:
            assert reply.status in (200, 201), (operation_id, reply)
            assert f"{MARK}@shop" not in json.dumps(reply.body), f"{operation_id} names the staff"
        else:
            assert (reply.status, reply.body["code"]) == (403, "not_permitted"), (operation_id, reply)
        assert f"private {MARK}" not in json.dumps(reply.body), operation_id


@pytest.mark.parametrize("stranger", ["another customer", "a key of another channel"])
def test_of_an_order_of_somebody_else_nothing_is_seen_or_done(world: World, stranger: str) -> None:
    is_customer = stranger == "another customer"
    credential = world.token(STRANGER) if is_customer else world.key(*ALL_SCOPES, channel="app")
    world.place(STRANGER, "app", mark="own")
    missing = {**world.victim, "id": "01a20aba-6e99-743f-8292-11e9cafb05ea", "customer_id": 999}
    for operation_id in world.operations:
        reply = world.ask(operation_id, world.victim, credential)
        require_no_leak(world, reply, f"{operation_id} by {stranger}")
        name, method = names(operation_id), world.operations[operation_id][0]
        if "{id}" in world.operations[operation_id][1] and scope_of(operation_id) in (
            Scope.ORDERS_READ,
            Scope.ORDERS_CHANGE,
            Scope.WEBHOOKS_READ,
            Scope.WEBHOOKS_MANAGE,
        ):
            allowed = not is_customer or name in FOR_CUSTOMERS
            assert reply.status == (404 if allowed else 403), (operation_id, reply)
            same = world.ask(operation_id, missing, credential)
            assert (same.status, same.body["code"]) == (reply.status, reply.body["code"]), operation_id
        if is_customer and name in ("place_order", "place_customer_order"):
            assert reply.status == 404, (operation_id, method, reply)


def test_a_version_in_a_header_is_no_oracle(world: World) -> None:
    for credential in (world.token(STRANGER), world.key(*ALL_SCOPES, channel="app")):
        path = f"{world.service.url}/orders/{world.victim['id']}"
        for tag in ('"1"', '"7"', "*"):
            known = world.service.http.get(path, headers={**credential, "If-None-Match": tag})
            changed = world.service.http.post(f"{path}/cancel", {}, headers={**credential, "If-Match": tag})
            assert (known.status, changed.status) == (404, 404), tag


def test_a_conflict_names_no_order_of_somebody_else(world: World) -> None:
    """The victim's reference is taken, which has to be said; whose it is, is not."""
    key = world.key(*ALL_SCOPES, channel="app")
    body = {**BODIES["place_order"], "external_reference": world.victim["external_reference"]}
    for customer_id in (STRANGER, OWNER):
        reply = world.service.http.post(f"{world.service.url}/orders/{customer_id}", body, headers=key)
        assert (reply.status, reply.body["code"]) == (409, "external_reference_taken")
        assert world.victim["id"] not in json.dumps(reply.body)


def test_an_idempotency_key_of_somebody_else_is_another_key(world: World) -> None:
    """The same text from two principals makes two orders; it never gives one the other's answer."""
    text = {"Idempotency-Key": f"{MARK}-key"}
    url, body = f"{world.service.url}/orders/{OWNER}", BODIES["place_order"]
    credentials = [world.token(OWNER), world.key(*ALL_SCOPES), world.key(*ALL_SCOPES, channel="app"), world.admin]
    placed = [world.service.http.post(url, body, headers={**who, **text}) for who in credentials]
    assert [reply.status for reply in placed] == [201] * 4
    assert len({reply.body["id"] for reply in placed}) == 4
    again = [world.service.http.post(url, body, headers={**who, **text}) for who in credentials]
    assert [reply.body["id"] for reply in again] == [reply.body["id"] for reply in placed]
