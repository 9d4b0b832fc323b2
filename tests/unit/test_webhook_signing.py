"""Signatures of webhooks, checked by the libraries that receivers use."""

import base64
import json
import time

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from svix.webhooks import Webhook as SvixWebhook

from orders.webhooks.signing import Sealing, SignatureKind, SigningKey, given_key, new_key, signature_headers


def test_the_example_of_the_specification() -> None:
    key = given_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signature_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [key])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("verifier", [Webhook, SvixWebhook])
def test_libraries_verify_with_the_old_secret_and_the_new_one(verifier: type) -> None:
    old, new = new_key(SignatureKind.V1), new_key(SignatureKind.V1)
    body = json.dumps({"type": "order.placed"}).encode()
    headers = signature_headers("01a2-1", int(time.time()), body, [new, old])
    for key in (old, new):
        verifier(key.text).verify(body.decode(), headers)  # raises if it is not signed with this key
    with pytest.raises(Exception, match="signature"):
        verifier(new_key(SignatureKind.V1).text).verify(body.decode(), headers)


@given(st.binary(), st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True))
def test_public_keys_verify(body: bytes, id: str) -> None:
    key = new_key(SignatureKind.V1A)
    signature = signature_headers(id, 1, body, [key])["webhook-signature"].removeprefix("v1a,")
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode((key.public_text or "").removeprefix("whpk_")))
    public.verify(base64.b64decode(signature), f"{id}.1.".encode() + body)


@given(st.binary(min_size=24, max_size=64), st.sampled_from(SignatureKind))
def test_secrets_are_sealed_for_one_owner(secret: bytes, kind: SignatureKind) -> None:
    key, sealing = SigningKey(kind, secret), Sealing("correct horse")
    sealed = sealing.seal(key, "a")
    assert secret not in sealed
    assert sealing.open(kind, sealed, "a") == key
    assert sealing.seal(key, "a") != sealed
    for other, owner in ((sealing, "b"), (Sealing("other"), "a")):
        with pytest.raises(InvalidTag):
            other.open(kind, sealed, owner)


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_AAAA", "whsec_!!!", "whsec_" + base64.b64encode(b"a" * 65).decode(), "wh€sec"]
)
def test_bad_secrets_are_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must"):
        given_key(text)
