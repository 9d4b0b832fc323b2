"""What a key may be given: its name, scopes and channel, and the rule that nobody gives what they don't have. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from orders.errors import Code, OrderError
from orders.principal import PRESETS, Principal, Scope, with_implied

NAME = r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,59}"
"""Pattern of a key's name. It stands in histories before a slash and the person for whom the key asks, so it has no
slash and no colon.
"""

CHANNEL = "[a-z0-9_-]{1,64}"
"""Pattern of a channel."""

MAX_RATE = 1_000_000
"""Maximum of the requests per second that a key can be limited to."""


LONGEST = timedelta(days=36_500)
"""Maximum time that a key with an expiry lasts: 100 years. A key without one lasts until it is revoked."""


class Preset(StrEnum):
    """The work that a key can be for. `PRESETS` has the scopes of each."""

    STOREFRONT = "storefront"
    WAREHOUSE = "warehouse"
    FINANCE = "finance"
    INTEGRATION = "integration"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key is to be: its name, and what it may do. `rate`: requests per second; None: the setting's."""

    name: str
    scopes: frozenset[Scope]
    channel: str | None = None
    rate: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever changes a key, as the audit names them. `address` is the client's; None: the command line."""

    actor: str
    address: str | None = None
    request_id: str | None = None


def scopes_of(presets: Iterable[Preset], scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The scopes of these presets, and these scopes."""
    return frozenset(scopes).union(*(PRESETS[preset] for preset in presets))


def sorted_scopes(scopes: Collection[str]) -> list[str]:
    """The scopes in the order of `Scope`. Those of newer versions are the last."""
    known = [str(scope) for scope in Scope]
    names = map(str, scopes)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def understood(scopes: Iterable[str]) -> frozenset[Scope]:
    """The scopes that this version knows, and those that come along with them."""
    return with_implied([scope for scope in Scope if scope in set(scopes)])


def refuse_to_give(principal: Principal, scopes: Collection[str], channel: str | None) -> None:
    """Raise OrderError (403) if the principal does not itself have what it wants to give a key."""
    if missing := sorted_scopes((understood(scopes) | set(scopes)) - principal.scopes):
        detail = f"A credential gives only what it has; this one lacks {', '.join(missing)}."
        raise OrderError(Code.NOT_PERMITTED, detail, extra={"required_scope": missing[0]})
    own = principal.seer.channel
    if own is not None and channel != own:
        detail = f"A credential of the channel {own} makes keys of that channel only. Send `channel` {own!r}."
        raise OrderError(Code.NOT_PERMITTED, detail)
