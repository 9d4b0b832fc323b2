"""Which orders a list has, in which order, and where a page of it begins. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar
from uuid import UUID

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Range(Generic[T]):
    """From `least` on, and before `end`; None: open on that side."""

    least: T | None = None
    end: T | None = None

    def __bool__(self) -> bool:
        return self.least is not None or self.end is not None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which orders; all of it has to hold. Without `statuses`: those that are placed.

    `created` is a range of IDs, which begin with the time. What an adopted order never recorded is in no range.
    """

    statuses: tuple[str, ...] = ()
    customer_id: int | None = None
    product_id: int | None = None
    number: int | None = None
    external_reference: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    created: Range[UUID] = Range()
    updated: Range[datetime] = Range()
    total: Range[int] = Range()


class SortKey(StrEnum):
    """What a list can be sorted by; ties are broken by the ID."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    TOTAL = "total"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Sort:
    """A list's order. What was never recorded counts as the smallest."""

    by: SortKey = SortKey.CREATED_AT
    descending: bool = True


NEWEST_FIRST = Sort()
OLDEST_FIRST = Sort(descending=False)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list: behind the order with this key and ID. The key is None where it was never recorded."""

    key: datetime | int | None
    id: UUID
