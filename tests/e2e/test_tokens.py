"""Customers with tokens of a real issuer (an OpenID provider in a process of its own), at the service over HTTP."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from pyreqwest.client import SyncClientBuilder

from tests.conftest import Http, Sandbox, answers, free_port, wait_until
from tests.e2e.conftest import Service, Start
from tests.made_up_issuer import part

SHOP = "shop"
BACK = "http://localhost/back"
PEOPLE: dict[str, dict[str, Any]] = {
    "anna": {"customer_id": 42},
    "bert": {"customer_id": "43"},
    "carl": {"email": "carl@shop.example", "permissions": ["orders:change", "customers:read"]},
    "asks for a scope": {"email": "eve@shop.example", "scope": "openid access:manage orders:change"},
    "nobody": {},
}


@dataclass
class Provider:
    """The issuer. It tells who it is by the address that it is asked at."""

    http: Http
    url: str

    def sign_in(self, who: str, client: str = SHOP) -> dict[str, str]:
        """The header with the ID token that somebody gets by signing in for the shop."""
        asked = {"client_id": client, "redirect_uri": BACK, "response_type": "code", "scope": "openid email"}
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        with SyncClientBuilder().follow_redirects(False).build() as browser:
            sent = browser.post(f"{self.url}/oauth2/authorize?{urlencode(asked)}").headers(form)
            answer = sent.body_text(urlencode({"sub": who})).build().send()
            code = parse_qs(urlsplit(answer.get_header("location") or "").query)["code"][0]
            grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "client_id": client}
            sent = browser.post(f"{self.url}/oauth2/token").headers(form)
            token = sent.body_text(urlencode({**grant, "client_secret": "any"})).build().send().json()["id_token"]
        return {"Authorization": f"Bearer {token}"}


def start_provider(port: int) -> "subprocess.Popen[bytes]":
    users = [word for sub, claims in PEOPLE.items() for word in ("--user-claims", json.dumps({"sub": sub, **claims}))]
    words = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), *users]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL, env={**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"})


@pytest.fixture(scope="module")
def provider(http: Http) -> Iterator[Provider]:
    port = free_port()
    process = start_provider(port)
    provider = Provider(http, f"http://127.0.0.1:{port}")
    wait_until(lambda: answers(provider.url), "the issuer answers")
    yield provider
    process.kill()
    process.wait()


@pytest.fixture
def guarded(start: Start, provider: Provider) -> Service:
    """A service that takes the issuer's tokens."""
    return start(orders_jwt_issuer=provider.url, orders_jwt_audience=SHOP, orders_jwt_staff_claim="permissions")


def test_a_customer_places_reads_and_cancels_their_own_order(
    guarded: Service, provider: Provider, sandbox: Sandbox
) -> None:
    anna = provider.sign_in("anna")
    placed = guarded.place(42, (sandbox.product(5), 1), headers=anna)
    assert placed.status == 201
    path = f"/orders/{placed.body['id']}"
    assert guarded.get(path, headers=anna).status == 200
    assert guarded.get("/customers/42/orders", headers=anna).body["orders"][0]["id"] == placed.body["id"]
    cancelled = guarded.http.post(f"{guarded.url}{path}/cancel", headers=anna)
    assert (cancelled.status, cancelled.body["status"]) == (200, "Cancelled")


def test_anothers_order_is_answered_as_if_it_did_not_exist(
    guarded: Service, provider: Provider, sandbox: Sandbox
) -> None:
    anna, bert = provider.sign_in("anna"), provider.sign_in("bert")
    own = guarded.place(43, (sandbox.product(5), 1), headers=bert).body["id"]
    assert guarded.get(f"/orders/{own}", headers=bert).status == 200
    nowhere = f"{own[:-12]}{'0' * 12}"
    for path in ("/orders/{}", "/orders/{}/events", "/orders/{}?at=1"):
        foreign, missing = (guarded.get(path.format(order), headers=anna) for order in (own, nowhere))
        assert (foreign.status, foreign.body["code"]) == (404, "order_not_found")
        assert json.dumps(foreign.body) == json.dumps(missing.body).replace(nowhere, own)
    assert guarded.get("/customers/43/orders", headers=anna).status == 404
    assert guarded.get("/orders/43", headers=anna).status == 404
    cancelled = guarded.http.post(f"{guarded.url}/orders/{own}/cancel", headers=anna)
    assert (cancelled.status, cancelled.body["code"]) == (404, "order_not_found")
    assert guarded.place(43, (sandbox.product(5), 1), headers=anna).status == 404
    orders = guarded.get("/customers/43/orders", headers=bert).body["orders"]
    assert [(order["id"], order["status"]) for order in orders] == [(own, "Ordered")]


def test_a_customer_may_not_do_what_staff_does(guarded: Service, provider: Provider, sandbox: Sandbox) -> None:
    anna = provider.sign_in("anna")
    order = guarded.place(42, (sandbox.product(5), 1), headers=anna).body["id"]
    refused = guarded.http.put(f"{guarded.url}/orders/{order}", {"status": "Processing"}, headers=anna)
    assert (refused.status, refused.body["code"]) == (403, "not_permitted")
    refused = guarded.place(42, (sandbox.product(5), 1), headers={**anna, "X-Actor": "boss"})
    assert (refused.status, refused.body["code"]) == (403, "not_permitted")


def test_staff_changes_every_order_and_the_history_names_who_did_what(
    guarded: Service, provider: Provider, sandbox: Sandbox
) -> None:
    order = guarded.place(42, (sandbox.product(5), 1), headers=provider.sign_in("anna")).body["id"]
    carl = provider.sign_in("carl")
    moved = guarded.http.put(f"{guarded.url}/orders/{order}", {"status": "Processing"}, headers=carl)
    assert moved.status == 200
    events = guarded.get(f"/orders/{order}/events", headers=carl).body["events"]
    assert {event["actor"] for event in events} == {"customer:42", "staff:carl@shop.example"}


def test_without_a_valid_token_the_answer_is_401_even_to_this_machine(guarded: Service, provider: Provider) -> None:
    assert guarded.get("/orders").body["code"] == "credential_required"
    anna = provider.sign_in("anna")["Authorization"]
    begin, payload, end = anna.removeprefix("Bearer ").split(".")
    bad = {
        "for another service": provider.sign_in("anna", client="another")["Authorization"],
        "a scope, but not in the claim of the setting": provider.sign_in("asks for a scope")["Authorization"],
        "neither a customer nor staff": provider.sign_in("nobody")["Authorization"],
        "unsigned": f"Bearer {part({'alg': 'none'})}.{payload}.",
        "truncated": anna[:-4],
        "another payload": f"Bearer {begin}.{part({'customer_id': 7})}.{end}",
    }
    for what, credential in bad.items():
        answer = guarded.get("/customers/42/orders", headers={"Authorization": credential})
        assert (answer.status, answer.body["code"]) == (401, "credential_invalid"), what


def test_customers_may_be_allowed_less(start: Start, provider: Provider, sandbox: Sandbox) -> None:
    service = start(orders_jwt_issuer=provider.url, orders_jwt_audience=SHOP, orders_customer_may="read")
    anna = provider.sign_in("anna")
    assert service.get("/customers/42/orders", headers=anna).status in (200, 404)  # 404: no orders yet
    assert service.place(42, (sandbox.product(5), 1), headers=anna).body["code"] == "not_permitted"


def test_a_service_whose_issuer_is_away_starts_answers_503_and_goes_on_when_it_is_there(start: Start) -> None:
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    service = start(orders_jwt_issuer=issuer, orders_jwt_audience=SHOP, orders_jwt_staff_claim="permissions")
    made_up = f"{part({'alg': 'RS256', 'kid': 'x'})}.{part({})}.AAAA"
    away = service.get("/orders", headers={"Authorization": f"Bearer {made_up}"})
    assert (away.status, away.body["code"], away.headers["retry-after"]) == (503, "tokens_unchecked", "5")
    assert service.get("/health").status == 200
    process = start_provider(port)
    try:
        wait_until(lambda: answers(issuer), "the issuer answers")
        carl = Provider(service.http, issuer).sign_in("carl")
        wait_until(lambda: service.get("/orders", headers=carl).status == 200, "the keys are known")
    finally:
        process.kill()
        process.wait()
