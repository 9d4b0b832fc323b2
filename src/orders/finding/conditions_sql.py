"""The filters of a list as conditions on an order, in SQL."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from orders.finding.filters import Filters, Position, Range, Sort, SortKey
from orders.order.seer_sql import is_seen_by, seer_values
from orders.order.statuses import FAILED, PENDING
from orders.principal import Seer

KEYS = {
    SortKey.CREATED_AT: "o.id",
    SortKey.UPDATED_AT: "coalesce(o.updated_at, '-infinity')",
    SortKey.TOTAL: "coalesce(o.total, -1)",
    SortKey.NUMBER: "o.number",
}
"""The sort keys in SQL: the same expressions as in the indexes of migration 0004. An order's ID begins with the time of
its creation.
"""

_COLUMNS = {SortKey.UPDATED_AT: "o.updated_at", SortKey.TOTAL: "o.total"}
"""The columns in these expressions. PostgreSQL has indexes of the expressions, but statistics of the columns."""

_TYPES = {SortKey.UPDATED_AT: "timestamptz", SortKey.TOTAL: "bigint", SortKey.NUMBER: "bigint"}
_NEVER_RECORDED = {SortKey.UPDATED_AT: "-infinity", SortKey.TOTAL: -1}

SMALLEST_ID = UUID(int=1 << 80)
"""The first ID of the first millisecond. Adopted orders have smaller ones."""

_FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on the order `o`, and the values of its parameters."""

    sql: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IdCondition:
    """A condition on an order's ID, as `< %(until)s::uuid`, and the value of its parameter."""

    comparison: str
    values: Mapping[str, Any]

    def of(self, column: str) -> str:
        """The condition on this column."""
        return f"{column} {self.comparison}"


IS_PLACED = Condition("(o.status NOT IN ('Pending', 'Failed') OR o.adopted)")
"""The order is placed. The SQL is word for word as in the partial indexes."""


def placed_ones(filters: Filters) -> list[Condition]:
    """Only placed orders, unless the filters ask for orders that are not placed."""
    return [] if {PENDING, FAILED} & set(filters.statuses) else [IS_PLACED]


def has_status(filters: Filters) -> list[Condition]:
    """The order has one of the statuses in the filters, if there are any."""
    if not filters.statuses:
        return []
    return [Condition("o.status = ANY(%(statuses)s::text[])", {"statuses": [str(s) for s in filters.statuses]})]


def seen_by(seer: Seer) -> list[Condition]:
    """The seer sees the order."""
    return [] if seer.sees_all_orders else [Condition(is_seen_by(seer), seer_values(seer))]


def in_channel(channel: str | None) -> list[Condition]:
    """The order came through this channel, if there is one."""
    return [*_equal("channel", channel)]


def conditions(filters: Filters, seer: Seer, of_ids: Sequence[IdCondition] = ()) -> list[Condition]:
    """The filters without the statuses, what the seer sees, and `of_ids`, as conditions on the order.

    Conditions on the ID are repeated for the order IDs of joined tables, because PostgreSQL does not infer them.
    """
    of_ids = [*of_ids, *_created(filters.created)]
    return [
        *seen_by(seer),
        *_equal("customer_id", filters.customer_id),
        *in_channel(filters.channel),
        *_equal("number", filters.number),
        *_has_reference(filters.external_reference),
        *(Condition(of_id.of("o.id"), of_id.values) for of_id in of_ids),
        *_has_product(filters.product_id, of_ids),
        *_has_metadata(filters.metadata, of_ids),
        *_in_range("updated", SortKey.UPDATED_AT, filters.updated, _FIRST_MOMENT),
        *_in_range("total", SortKey.TOTAL, filters.total, 0),
    ]


def behind(place: Position, sort: Sort) -> tuple[list[IdCondition], list[Condition]]:
    """The order is after this place: a condition on its ID, if that is the sort key, or on the key and the ID."""
    sign = "<" if sort.descending else ">"
    order_id = {"after_id": str(place.id)}
    if sort.by is SortKey.CREATED_AT:
        return [IdCondition(f"{sign} %(after_id)s::uuid", order_id)], []
    key = _NEVER_RECORDED.get(sort.by) if place.key is None else place.key
    comparison = f"({KEYS[sort.by]}, o.id) {sign} (%(after_key)s::{_TYPES[sort.by]}, %(after_id)s::uuid)"
    return [], [Condition(comparison, {"after_key": key, **order_id})]


def before(until: UUID | None) -> list[IdCondition]:
    """The order's ID is smaller than `until`, if that is given."""
    return [IdCondition("< %(until)s::uuid", {"until": str(until)})] if until else []


def all_of(where: Iterable[Condition]) -> str:
    """The conditions in one."""
    return " AND ".join(condition.sql for condition in where)


def values_of(where: Iterable[Condition]) -> dict[str, Any]:
    """The values of the parameters of all conditions."""
    return {name: value for condition in where for name, value in condition.values.items()}


def _equal(column: str, value: int | str | None) -> Iterator[Condition]:
    if value is not None:
        yield Condition(f"o.{column} = %({column})s", {column: value})


def _has_reference(reference: str | None) -> Iterator[Condition]:
    """The order has this reference. Old references were not normalised, so they are looked for as they are, too."""
    if reference is None:
        return
    normal = unicodedata.normalize("NFC", reference)
    if normal == reference:
        yield Condition("o.external_reference = %(normal_reference)s", {"normal_reference": normal})
    else:
        either = {"normal_reference": normal, "external_reference": reference}
        yield Condition("o.external_reference IN (%(normal_reference)s, %(external_reference)s)", either)


def _created(wanted: Range[UUID]) -> Iterator[IdCondition]:
    for comparison, name, value in _bounds("created", wanted, SMALLEST_ID):
        yield IdCondition(comparison, {name: str(value)})


def _has_product(product_id: int | None, of_ids: Sequence[IdCondition]) -> Iterator[Condition]:
    if product_id is not None:
        yield _exists("order_items", "i.product_id = %(product_id)s", {"product_id": product_id}, of_ids)


def _has_metadata(members: Iterable[tuple[str, str]], of_ids: Sequence[IdCondition]) -> Iterator[Condition]:
    for n, (key, value) in enumerate(members):
        condition = f"i.key = %(metadata_key_{n})s AND i.value = %(metadata_value_{n})s"
        values = {f"metadata_key_{n}": key, f"metadata_value_{n}": value}
        yield _exists("order_metadata", condition, values, of_ids)


def _exists(table: str, condition: str, values: Mapping[str, Any], of_ids: Sequence[IdCondition]) -> Condition:
    """The order has a row `i` in this table for which the condition holds."""
    also = "".join(f" AND {of_id.of('i.order_id')}" for of_id in of_ids)
    return Condition(f"EXISTS (SELECT FROM {table} i WHERE i.order_id = o.id AND {condition}{also})", values)


def _in_range(name: str, key: SortKey, wanted: Range[Any], smallest: Any) -> Iterator[Condition]:
    """The sort key is in the range. That is repeated for the column, so that PostgreSQL can use its statistics."""
    for expression in (KEYS[key], _COLUMNS[key]):
        for comparison, parameter, value in _bounds(name, wanted, smallest):
            yield Condition(f"{expression} {comparison}", {parameter: value})


def _bounds(name: str, wanted: Range[Any], smallest: Any) -> Iterator[tuple[str, str, Any]]:
    """The ends of a range: for each the comparison, its parameter, and the parameter's value. The lower end is at least
    `smallest`: a value that was never recorded is below that.
    """
    if wanted:
        least = smallest if wanted.least is None else max(wanted.least, smallest)
        yield f">= %({name}_least)s", f"{name}_least", least
    if wanted.end is not None:
        yield f"< %({name}_end)s", f"{name}_end", wanted.end
