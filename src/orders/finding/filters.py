"""The filters of a list, its order, and the place where a page of it begins. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar
from uuid import UUID

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Range(Generic[T]):
    """Values from `least` (included) to `end` (not included). None: open on that side."""

    least: T | None = None
    end: T | None = None

    def __bool__(self) -> bool:
        return self.least is not None or self.end is not None


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions for orders; all have to hold. Without `statuses`, only placed orders count.

    `created` is a range of IDs, which begin with the time. A value that an adopted order never recorded is in no range.
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
    channel: str | None = field(default=None, repr=False)  # so that cursors from before there were channels still hold


class SortKey(StrEnum):
    """The keys by which a list can be sorted. The ID breaks ties."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    TOTAL = "total"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Sort:
    """A list's order. A value that was never recorded counts as the smallest."""

    by: SortKey = SortKey.CREATED_AT
    descending: bool = True


NEWEST_FIRST = Sort()
OLDEST_FIRST = Sort(descending=False)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list: after the order with this key and ID. The key is None if it was never recorded."""

    key: datetime | int | None
    id: UUID
