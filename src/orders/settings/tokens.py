"""Settings of customers' tokens: which algorithms may sign them, and what customers may do."""

from orders.principal import CustomerMay
from orders.settings.address import base_url

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""Algorithms that can be allowed. All are asymmetric: the issuer alone can sign, and the service has no secret."""


def listed(text: str) -> tuple[str, ...]:
    """The parts between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def algorithms(text: str) -> str:
    """The names, all of them in ALGORITHMS. Raises ValueError."""
    names = listed(text)
    if wrong := [name for name in names if name not in ALGORITHMS]:
        raise ValueError(f"{wrong[0]!r} can't be allowed; a token is signed with one of {', '.join(ALGORITHMS)}")
    if not names:
        raise ValueError(f"must name at least one of {', '.join(ALGORITHMS)}")
    return text


def customer_may(text: str) -> str:
    """What customers may do: names with commas, or nothing. Raises ValueError."""
    if wrong := [name for name in listed(text) if name not in set(CustomerMay)]:
        raise ValueError(f"{wrong[0]!r} is nothing that customers can do; {', '.join(CustomerMay)} are")
    return text


def issuer(text: str) -> str:
    """The issuer as its tokens have it: a slash at its end stays, because `iss` is compared as it is.

    Raises ValueError.
    """
    url = text.strip()
    base_url(url)
    if "@" in url:
        raise ValueError("must have no user and no password")
    return url


def keys_url(text: str) -> str:
    """The address of the issuer's keys, which may have a query. Raises ValueError."""
    url = text.strip()
    base_url(url.partition("?")[0])
    return url
