"""The keys that an issuer signs tokens with, read from its JSON Web Key Set (RFC 7517). Pure.

Only public keys of the allowed algorithms are taken. The rest is ignored: symmetric keys, keys for encryption, small
keys, and what is no key. A key's address or certificate (`jku`, `x5u`, `x5c`) is never looked at.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key
from joserfc.util import urlsafe_b64decode

from orders.neighbours.reply import MalformedReply

MAX_KEYS = 100
"""Maximum number of keys that are taken. Issuers have two to ten."""

MIN_RSA_BITS = 2048
"""Minimum size of an RSA key (NIST SP 800-131A)."""

MAX_RSA_BITS = 8192
"""Maximum size of an RSA key: a signature of a larger one takes milliseconds to check."""

_MAX_EXPONENT_CHARS = 8
"""Maximum length of an RSA key's exponent in base64: a long one makes every check slow. Nearly all are `AQAB`."""

_Family = tuple[str, str | None]
"""A key's type and its curve."""

_RSA: _Family = ("RSA", None)
_FAMILIES: Mapping[str, _Family] = {
    "RS256": _RSA, "RS384": _RSA, "RS512": _RSA, "PS256": _RSA, "PS384": _RSA, "PS512": _RSA,
    "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"), "Ed25519": ("OKP", "Ed25519"),
}  # fmt: skip
"""The keys that each algorithm needs."""

_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


class _NotUsable(Exception):
    """A key can't be used. The message says why."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key. `algorithm`: the only one that the issuer uses it for, or None."""

    kid: str | None
    family: _Family
    algorithm: str | None
    key: Key

    def fits(self, algorithm: str) -> bool:
        """Whether the key can check signatures of this algorithm."""
        return self.family == _FAMILIES[algorithm] and self.algorithm in (None, algorithm)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer. `ignored` says which ones were not taken, and why; it is empty if there are none."""

    keys: tuple[SigningKey, ...]
    ignored: str = ""

    def knows(self, kid: str) -> bool:
        """Whether there is a key of this ID."""
        return any(key.kid == kid for key in self.keys)

    def choose(self, kid: str | None, algorithm: str) -> Key | None:
        """The key that a token names. A token that names none has one only if a single key fits its algorithm."""
        fitting = [key.key for key in self.keys if key.fits(algorithm) and kid in (None, key.kid)]
        if not fitting or (kid is None and len(fitting) > 1):
            return None
        return fitting[0]


def read_key_set(document: Any, algorithms: Collection[str]) -> KeySet:
    """The usable keys of a JSON Web Key Set. Raises MalformedReply if it is none."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise MalformedReply("it is no JSON Web Key Set: it has no list `keys`")
    keys: list[SigningKey] = []
    ignored: dict[str, int] = {}
    for entry in listed[:MAX_KEYS]:
        try:
            keys.append(_read_key(entry, algorithms))
        except _NotUsable as why:
            ignored[str(why)] = ignored.get(str(why), 0) + 1
    if len(listed) > MAX_KEYS:
        ignored[f"more than {MAX_KEYS}"] = len(listed) - MAX_KEYS
    return KeySet(tuple(keys), ", ".join(f"{count} ({why})" for why, count in ignored.items()))


def _read_key(entry: Any, algorithms: Collection[str]) -> SigningKey:
    if not isinstance(entry, dict):
        raise _NotUsable("no object")
    kid, algorithm = entry.get("kid"), entry.get("alg")
    if not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
        raise _NotUsable("kid or alg is no text")
    _require_for_signatures(entry)
    public = _public_members(entry)
    family = (public["kty"], public.get("crv"))
    wanted = [name for name in algorithms if _FAMILIES[name] == family]
    if not wanted or (algorithm is not None and algorithm not in wanted):
        raise _NotUsable("of an algorithm that ORDERS_JWT_ALGORITHMS does not name")
    if family == _RSA:
        _require_sane_rsa(public)
    try:
        key = JWKRegistry.import_key(dict(public))
    except (JoseError, ValueError, KeyError, UnsupportedAlgorithm):
        raise _NotUsable("broken") from None
    return SigningKey(kid, family, algorithm, key)


def _require_for_signatures(entry: Mapping[str, Any]) -> None:
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise _NotUsable("not for signatures")


def _public_members(entry: Mapping[str, Any]) -> dict[str, str]:
    """What makes the public key. A private key that an issuer shows by mistake is left out."""
    kty = entry.get("kty")
    if kty == "oct":
        raise _NotUsable("symmetric")
    if not isinstance(kty, str) or kty not in _PUBLIC_MEMBERS:
        raise _NotUsable("of an unknown type")
    members = {name: entry.get(name) for name in ("kty", *_PUBLIC_MEMBERS[kty])}
    public = {name: value for name, value in members.items() if isinstance(value, str)}
    if len(public) < len(members):
        raise _NotUsable("broken")
    return public


def _require_sane_rsa(public: Mapping[str, str]) -> None:
    """Refuse sizes before the library sees them: it warns of small keys, and takes large ones."""
    try:
        bits = int.from_bytes(urlsafe_b64decode(public["n"].encode())).bit_length()
    except ValueError:
        raise _NotUsable("broken") from None
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS or len(public["e"]) > _MAX_EXPONENT_CHARS:
        raise _NotUsable("of a size that is not safe")
