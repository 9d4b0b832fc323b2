"""The principal that a token's claims describe. The token's signature and times have been checked. Pure.

A token is staff's only by the claim that the setting names. Many issuers give a `scope` to everybody who asks for it,
also to an account that has no customer's ID yet. A token that names a customer is that customer's, whatever else it
has.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from orders.principal import CustomerMay, Principal, PrincipalKind, Scope, Seer, with_implied

MAX_CUSTOMER_ID = 2**63 - 1
"""Maximum ID of a customer, as in the tables."""

MAX_SUBJECT_CHARS = 255
"""Maximum length of `sub` (OpenID Connect Core, 2)."""

MAX_NAME_CHARS = 100
"""Maximum length of a name in the history, like that of X-Actor."""

_MISSING = object()
"""What `_claim` finds where there is no such claim. A claim can be null."""

_DECIMAL = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_READABLE = "!#$&'()*+,:;=?@[]^`{|}"
"""Characters of a name that are written as they are, beside letters and digits. A slash is not: in the history, it is
between a principal and the person that it names.
"""


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What the settings say of claims: where the customer's ID is, what customers may do, and where the scopes of staff
    are. Without `staff_claim` no token is staff's.
    """

    customer_claim: str
    customer_may: frozenset[CustomerMay]
    staff_claim: str | None = None


def principal_by(claims: Mapping[str, Any], rules: ClaimRules) -> Principal | None:
    """The customer, or the staff or service with scopes of ours. None if the claims describe neither."""
    customer = _claim(claims, rules.customer_claim)
    if customer is not _MISSING:
        return _customer(customer, rules)
    scopes = _scopes(_claim(claims, rules.staff_claim)) if rules.staff_claim else None
    return _staff(claims, scopes) if scopes else None


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a dotted path through claims. Names of some issuers are URLs, which have dots."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name, _MISSING) if isinstance(found, dict) else _MISSING
    return found


def _customer(value: Any, rules: ClaimRules) -> Principal | None:
    customer_id = _customer_id(value)
    if customer_id is None:
        return None
    name = f"customer:{customer_id}"
    seer = Seer(customer_id=customer_id, sees_private=False)
    return Principal(PrincipalKind.CUSTOMER, name, name, frozenset(), seer, customer_may=rules.customer_may)


def _customer_id(value: Any) -> int | None:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 1 <= value <= MAX_CUSTOMER_ID else None


def _scopes(claim: Any) -> frozenset[Scope]:
    """The scopes of ours in a claim: names with spaces between them, or a list of names."""
    names = claim.split(" ") if isinstance(claim, str) else claim
    named = {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
    return with_implied([scope for scope in Scope if scope in named])


def _staff(claims: Mapping[str, Any], scopes: frozenset[Scope]) -> Principal | None:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _is_plain(subject):
        return None
    seer = Seer(sees_private=Scope.CUSTOMERS_READ in scopes)
    return Principal(
        PrincipalKind.STAFF, f"staff:{_readable(_name(claims, subject))}", f"staff:{subject}", scopes, seer
    )


def _name(claims: Mapping[str, Any], subject: str) -> str:
    """The email, unless the issuer says that it is not theirs. Some issuers say so in text: `"false"`."""
    email, verified = claims.get("email"), claims.get("email_verified")
    is_theirs = isinstance(email, str) and _is_plain(email) and (verified is None or verified is True)
    return str(email) if is_theirs else subject


def _is_plain(text: str) -> bool:
    return 1 <= len(text) <= MAX_SUBJECT_CHARS and text.isprintable()


def _readable(text: str) -> str:
    """The text in visible ASCII characters. Others are escaped as in URLs."""
    return quote(text, safe=_READABLE)[:MAX_NAME_CHARS]
