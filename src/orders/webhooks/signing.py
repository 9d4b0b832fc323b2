"""Secrets of webhooks, and the signatures made with them, as Standard Webhooks 1.0.0 says. Pure.

`v1` is HMAC-SHA256 with a shared secret (`whsec_…`). `v1a` is ed25519 with a private key (`whsk_…`), whose public key
(`whpk_…`) anybody may have.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MIN_SECRET_BYTES = 24
"""Minimum length of a shared secret, from Standard Webhooks."""

MAX_SECRET_BYTES = 64
"""Maximum length of a shared secret, from Standard Webhooks."""

_NEW_SECRET_BYTES = 32
_NONCE_BYTES = 12


class SignatureKind(StrEnum):
    """The kinds of signatures."""

    V1 = "v1"
    V1A = "v1a"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret that signs: the shared secret, or the private key."""

    kind: SignatureKind
    secret: bytes

    @property
    def text(self) -> str:
        """The secret as it is shown, once."""
        prefix = "whsec_" if self.kind is SignatureKind.V1 else "whsk_"
        return prefix + base64.b64encode(self.secret).decode()

    @property
    def public_text(self) -> str | None:
        """The public key as it is shown. None if the secret is shared."""
        if self.kind is SignatureKind.V1:
            return None
        key = Ed25519PrivateKey.from_private_bytes(self.secret).public_key()
        return "whpk_" + base64.b64encode(key.public_bytes_raw()).decode()

    def sign(self, content: bytes) -> str:
        """The signature of the content, with its kind in front."""
        if self.kind is SignatureKind.V1:
            signature = hmac.new(self.secret, content, hashlib.sha256).digest()
        else:
            signature = Ed25519PrivateKey.from_private_bytes(self.secret).sign(content)
        return f"{self.kind},{base64.b64encode(signature).decode()}"


def new_key(kind: SignatureKind) -> SigningKey:
    """A new secret, from the system's source of randomness."""
    return SigningKey(kind, secrets.token_bytes(_NEW_SECRET_BYTES))


def given_key(text: str) -> SigningKey:
    """The shared secret that a client gives, with or without `whsec_`. Raises ValueError with the reason."""
    try:
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be `whsec_` and base64") from None
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise ValueError(f"must have {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes; it has {len(secret)}")
    return SigningKey(SignatureKind.V1, secret)


def signature_headers(id: str, timestamp: int, body: bytes, keys: Sequence[SigningKey]) -> dict[str, str]:
    """The three headers of a delivery. `timestamp` is in seconds. During a rotation several keys sign."""
    content = f"{id}.{timestamp}.".encode() + body
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(key.sign(content) for key in keys),
    }


class Sealing:
    """Encrypts secrets for the database (AES-256-GCM). The key is derived from the setting ORDERS_SECRET."""

    def __init__(self, secret: str) -> None:
        self._cipher = AESGCM(hashlib.sha256(b"orders webhook secrets\0" + secret.encode()).digest())
        self._digest_key = hashlib.sha256(b"orders webhook digests\0" + secret.encode()).digest()

    def seal(self, key: SigningKey, owner: str) -> bytes:
        """The encrypted secret. It opens only for the same owner, so rows can't be exchanged."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key.secret, owner.encode())

    def digest(self, content: bytes) -> bytes:
        """A digest of content that may have a secret in it: without ORDERS_SECRET nobody can try guesses."""
        return hmac.new(self._digest_key, content, hashlib.sha256).digest()

    def open(self, kind: SignatureKind, sealed: bytes, owner: str) -> SigningKey:
        """The secret. Raises `cryptography.exceptions.InvalidTag` if ORDERS_SECRET is another one."""
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        return SigningKey(kind, self._cipher.decrypt(nonce, text, owner.encode()))
