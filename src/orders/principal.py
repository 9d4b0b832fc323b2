"""Principals: those who may ask, what each may do, and whose orders it sees. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum


class Scope(StrEnum):
    """The permissions that a key or a token can have. Each operation needs one of them (`wire/operations`)."""

    ORDERS_READ = "orders:read"
    ORDERS_PLACE = "orders:place"
    ORDERS_CHANGE = "orders:change"
    PAYMENTS_RECORD = "payments:record"
    CUSTOMERS_READ = "customers:read"
    CUSTOMERS_ERASE = "customers:erase"
    EVENTS_READ = "events:read"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_MANAGE = "webhooks:manage"
    REPORTS_READ = "reports:read"
    OPS_READ = "ops:read"
    OPS = "ops"
    ACCESS_MANAGE = "access:manage"


ALL_SCOPES = frozenset(Scope)

IMPLIED: Mapping[Scope, Scope] = {
    Scope.ORDERS_CHANGE: Scope.ORDERS_READ,
    Scope.CUSTOMERS_ERASE: Scope.CUSTOMERS_READ,
    Scope.WEBHOOKS_MANAGE: Scope.WEBHOOKS_READ,
    Scope.OPS: Scope.OPS_READ,
}
"""Scopes that come along with another: who may change a thing may read it."""

PRESETS: Mapping[str, frozenset[Scope]] = {
    "storefront": frozenset({Scope.ORDERS_READ, Scope.ORDERS_PLACE}),
    "warehouse": frozenset({Scope.ORDERS_CHANGE, Scope.EVENTS_READ}),
    "finance": frozenset({Scope.ORDERS_READ, Scope.PAYMENTS_RECORD, Scope.CUSTOMERS_READ, Scope.REPORTS_READ}),
    "integration": frozenset(
        {
            Scope.ORDERS_PLACE,
            Scope.ORDERS_CHANGE,
            Scope.CUSTOMERS_READ,
            Scope.EVENTS_READ,
            Scope.WEBHOOKS_MANAGE,
        }
    ),
    "admin": ALL_SCOPES,
}
"""Scopes by the work that a key is for (`orders keys create --as`)."""


def with_implied(scopes: Collection[Scope]) -> frozenset[Scope]:
    """The scopes, and those that come along with them."""
    return frozenset(scopes) | {IMPLIED[scope] for scope in scopes if scope in IMPLIED}


class CustomerMay(StrEnum):
    """What customers can be allowed to do with their own orders (ORDERS_CUSTOMER_MAY)."""

    READ = "read"
    PLACE = "place"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Seer:
    """Whose orders a principal sees: those of one customer, those of one channel, or all (None).

    Every statement that reads or locks orders for a request takes it. `sees_private`: private notes, and the names of
    the staff in the history.
    """

    customer_id: int | None = None
    channel: str | None = None
    sees_private: bool = True

    @property
    def sees_all_orders(self) -> bool:
        """Whether no order has to be left out."""
        return self.customer_id is None and self.channel is None

    @property
    def sees_everything(self) -> bool:
        """Whether nothing has to be left out."""
        return self is SEES_EVERYTHING or self == SEES_EVERYTHING  # the usual one needs no comparison

    def sees(self, customer_id: int, channel: str | None) -> bool:
        """Whether it sees this customer's order that came through this channel. `order/seer_sql` is the same in SQL."""
        return self.customer_id in (None, customer_id) and self.channel in (None, channel)


SEES_EVERYTHING = Seer()
"""The seer of background work, of the command line, and of keys that are bound to nothing."""


class PrincipalKind(Enum):
    """How a principal has proven who it is."""

    LOCAL = "local"
    """Not at all: it asks from this machine, and there is no key yet; or ORDERS_ACCESS is `open`."""
    KEY = "key"
    STAFF = "staff"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may ask. `name` is what the history says of them: `local`, `key:shop`, `customer:42`.

    `owner` is whose its Idempotency-Keys and its limits are: the key's family, the customer, or empty. `rate`: requests
    per second that it may make (None: the default of its kind). `customer_may` is empty unless it is a customer.
    """

    kind: PrincipalKind
    name: str
    owner: str
    scopes: frozenset[Scope]
    seer: Seer = SEES_EVERYTHING
    rate: int | None = None
    customer_may: frozenset[CustomerMay] = frozenset()

    @property
    def is_customer(self) -> bool:
        """Whether it is a customer, who sees nothing but their own orders."""
        return self.kind is PrincipalKind.CUSTOMER

    def may_claim(self) -> bool:
        """Whether it may say in X-Actor for whom it asks."""
        return Scope.ORDERS_CHANGE in self.scopes

    def actor(self, claimed: str | None) -> str:
        """The actor of a change: the principal, and whom it names beside itself."""
        return f"{self.name}/{claimed}" if claimed and self.may_claim() else self.name


LOCAL = Principal(PrincipalKind.LOCAL, "local", "", ALL_SCOPES)
"""Whoever asks from this machine while there is no key."""
