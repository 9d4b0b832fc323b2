"""What a hostile customer, or a key that may little, tries in order to see or do more than it may."""

import time
from typing import Any

import pytest

from tests.e2e.test_bola import BODIES, MARK, OWNER, STRANGER, World, lasting_world, world  # noqa: F401
from tests.e2e.test_keys import bearer
from tests.made_up_issuer import customer

PATCH = {"Content-Type": "application/merge-patch+json"}


# Tokens --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("customer_id", [None, ...])
def test_a_customer_without_an_id_is_no_staff(world: World, customer_id: Any) -> None:  # noqa: F811
    """An issuer gives a scope to whoever asks for it, also to an account that has no ID yet."""
    claims: dict[str, Any] = {"exp": int(time.time()) + 600, "scope": "openid access:manage", "sub": "auth0|fresh"}
    reply = world.service.get("/keys", headers=bearer(customer(**claims, customer_id=customer_id)))
    assert (reply.status, reply.body["code"]) == (401, "credential_invalid")


@pytest.mark.parametrize("verified", [False, "false"])
def test_an_email_that_the_issuer_calls_unverified_is_no_name(world: World, verified: Any) -> None:  # noqa: F811
    order = world.place()
    carl = {"exp": int(time.time()) + 600, "customer_id": ..., "permissions": ["orders:change"], "sub": "carl"}
    token = bearer(customer(**carl, email="ceo@shop.example", email_verified=verified))
    path = f"{world.service.url}/orders/{order['id']}"
    reply = world.service.http.send("PATCH", path, {"metadata": {"n": 1}}, headers={**token, **PATCH})
    assert reply.status == 200, reply
    events = world.service.http.get(f"{path}/events", headers=world.admin).body["events"]
    assert events[-1]["actor"] == "staff:carl"


# References ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dry_run", ["", "?dry_run=true"])
def test_a_customer_sets_no_reference_and_learns_of_none(world: World, dry_run: str) -> None:  # noqa: F811
    """A 409 would tell that somebody has it, and 201 would take the shop's next one away."""
    url, next_one = f"{world.service.url}/orders/{STRANGER}{dry_run}", f"web-2026-{time.time_ns()}"
    for reference in (world.victim["external_reference"], next_one):
        body = {**BODIES["place_order"], "external_reference": reference}
        told = world.service.http.post(url, body, headers=world.token(STRANGER))
        assert (told.status, told.body["code"]) == (403, "not_permitted")
        assert told.body["required_scope"] == "orders:change"
        assert reference not in told.body["detail"]
    body = {**BODIES["place_order"], "external_reference": None, "metadata": {"gift": True}, "notes": {"public": "!"}}
    assert world.service.http.post(url, body, headers=world.token(STRANGER)).status in (200, 201)
