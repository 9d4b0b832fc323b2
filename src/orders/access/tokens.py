"""Customers' tokens: JSON Web Tokens (RFC 7519) that an issuer has signed, checked as RFC 8725 advises.

The algorithms are those of the setting. The key is chosen by `kid` from the issuer's own keys; whatever else a token
says of keys (`jku`, `jwk`, `x5u`, `x5c`) is never used or fetched.
"""

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from joserfc.errors import ClaimError, JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry, deserialize_compact
from joserfc.jwt import JWTClaimsRegistry
from joserfc.util import urlsafe_b64decode

from orders.access.claims import ClaimRules, principal_by
from orders.access.issuer import Issuer
from orders.access.issuer_keys import NO_KEYS_S, IssuerKeys
from orders.access.jwks import KeySet
from orders.errors import Code, OrderError
from orders.principal import Principal
from orders.settings import Settings

log = logging.getLogger(__name__)

LEEWAY_S = 60
"""How far the issuer's clock may be from ours."""

MAX_TOKEN_CHARS = 8192
"""Maximum length of a token. Usual ones have 500 to 2,000 characters."""

REMEMBER_S = 60.0
"""How long a checked token is not checked again."""

MAX_REMEMBERED = 5000
"""Maximum number of checked tokens that are remembered: about 3 MB."""

_FORMAT = re.compile(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", re.ASCII)
_TYPES = (None, "jwt", "at+jwt", "application/at+jwt")
"""What `typ` may be, in lower case. Others are tokens for something else, like `logout+jwt`."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What counts of a token's header."""

    algorithm: str
    kid: str | None


@dataclass(frozen=True, slots=True)
class _Checked:
    """A token that was valid, from when to when it is not checked again, and whose it is."""

    principal: Principal
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What the settings say of tokens."""

    issuer: str
    audience: str
    algorithms: frozenset[str]
    claims: ClaimRules


class Tokens:
    """The tokens of one issuer, as credentials. `now`: the time, as tokens have it."""

    def __init__(self, rules: TokenRules, keys: IssuerKeys, now: Callable[[], float] = time.time) -> None:
        self.keys = keys
        self._rules = rules
        self._now = now
        # Headers that nobody here knows are ignored, as RFC 7515 says: strict_check_header would refuse them.
        self._registry = _Algorithms(algorithms=rules.algorithms, strict_check_header=False)
        self._required = JWTClaimsRegistry(
            now=lambda: int(now()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": rules.issuer},
            aud={"essential": True, "value": rules.audience},
            exp={"essential": True},
        )
        self._checked: dict[bytes, _Checked] = {}
        self._told: set[str] = set()  # there are few reasons: one for each claim

    def is_one(self, text: str) -> bool:
        """Whether the text has the three parts of a token."""
        return _FORMAT.fullmatch(text) is not None

    def exist(self) -> bool:
        """Always: an issuer is set up."""
        return True

    def find(self, text: str) -> Principal | OrderError | Awaitable[Principal | OrderError | None] | None:
        """The token's principal, or None if the token is not valid. An error (503) if no key is known.

        Awaitable if the issuer has to be asked for its keys first.
        """
        digest = sha256(text.encode()).digest()
        if checked := self._remembered(digest):
            return checked
        header = _read_header(text, self._rules.algorithms) if len(text) <= MAX_TOKEN_CHARS else None
        if header is None:
            return None
        keys = self.keys.current()
        if keys and (header.kid is None or keys.knows(header.kid)):
            return self._check(text, digest, header, keys)
        return self._check_later(text, digest, header)

    async def _check_later(self, text: str, digest: bytes, header: _Header) -> Principal | OrderError | None:
        await self.keys.look_again()
        keys = self.keys.current()
        return self._check(text, digest, header, keys) if keys else _unchecked()

    def _check(self, text: str, digest: bytes, header: _Header, keys: KeySet) -> Principal | None:
        key = keys.choose(header.kid, header.algorithm)
        if key is None:
            return None
        try:
            claims = _read_object(deserialize_compact(text, key, registry=self._registry).payload or b"")
            self._required.validate(claims)
        except ClaimError as why:
            self._tell(why.description)
            return None
        except (JoseError, ValueError, RecursionError):
            return None
        principal = principal_by(claims, self._rules.claims)
        if principal is None:
            self._tell(_nobodys(self._rules.claims))
            return None
        self._remember(digest, principal, claims["exp"])
        return principal

    def _tell(self, why: str) -> None:
        """Tell the log once for each reason. A wrong setting refuses every token, and clients are told no reason."""
        if why not in self._told:
            self._told.add(why)
            log.warning("A token of %s is not valid: %s. This is told once.", self._rules.issuer, why)

    # What was checked -------------------------------------------------------------------------------------------

    def _remembered(self, digest: bytes) -> Principal | None:
        checked = self._checked.get(digest)
        if checked is None:
            return None
        if checked.since <= self._now() < checked.until:  # before `since`: the clock was set back
            return checked.principal
        del self._checked[digest]
        return None

    def _remember(self, digest: bytes, principal: Principal, expires_at: float) -> None:
        now = self._now()
        until = min(expires_at, now + REMEMBER_S)
        if until <= now:  # it lives by the leeway
            return
        if len(self._checked) >= MAX_REMEMBERED:
            del self._checked[next(iter(self._checked))]
        self._checked[digest] = _Checked(principal, now, until)


class _Algorithms(JWSRegistry):
    """The allowed algorithms, and none besides."""

    max_header_length = max_payload_length = max_signature_length = MAX_TOKEN_CHARS

    def get_alg(self, name: str) -> Any:
        """The algorithm. The library's own function warns of EdDSA each time, whose new name is Ed25519 (RFC 9864)."""
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(f"{name} is not allowed")
        return self.algorithms[name]


def _read_header(text: str, algorithms: Collection[str]) -> _Header | None:
    """The header, or None if the token can't be valid whatever its signature is."""
    try:
        header = _read_object(urlsafe_b64decode(text.partition(".")[0].encode()))
    except (ValueError, RecursionError):
        return None
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in algorithms or not isinstance(kid, str | None):
        return None
    if not isinstance(kind, str | None) or (kind and kind.lower()) not in _TYPES:
        return None
    return None if "crit" in header else _Header(algorithm, kid)  # nothing that could be critical is understood


def _read_object(document: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError, also for NaN and for two members of one name, and RecursionError."""
    value = _STRICT.decode(document.decode())
    if not isinstance(value, dict):
        raise ValueError("no object")  # noqa: TRY004  # it is what was sent that is wrong
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _distinct(members: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(members)
    if len(document) < len(members):
        raise ValueError("an object has two members of one name")
    return document


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_distinct)


def _nobodys(rules: ClaimRules) -> str:
    staff = f"no scope of ours in {rules.staff_claim}" if rules.staff_claim else "ORDERS_JWT_STAFF_CLAIM is not set"
    return f"it has no customer's ID in {rules.customer_claim}, and {staff}"


def _unchecked() -> OrderError:
    detail = "The issuer has not given its keys yet, so no token can be checked. The service's log says why."
    return OrderError(Code.TOKENS_UNCHECKED, detail, retry_after_s=int(NO_KEYS_S))


def tokens_by(settings: Settings) -> Tokens | None:
    """The tokens by the settings. None if no issuer is set."""
    if settings.orders_jwt_issuer is None or settings.orders_jwt_audience is None:
        return None
    algorithms = settings.token_algorithms
    issuer = Issuer(
        settings.orders_jwt_issuer, settings.orders_jwt_jwks_url, algorithms, settings.orders_neighbour_timeout_s
    )
    claims = ClaimRules(settings.orders_jwt_customer_claim, settings.customer_may, settings.orders_jwt_staff_claim)
    return Tokens(TokenRules(issuer.name, settings.orders_jwt_audience, algorithms, claims), IssuerKeys(issuer))
