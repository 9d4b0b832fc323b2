"""Lists on the wire: the parameters for filters, sort and page, and the cursors in `next`."""

import base64
import hashlib
import re
import struct
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qs, urlencode
from uuid import UUID

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from orders.errors import OrderError, invalid
from orders.finding.filters import Filters, Position, Range, Sort, SortKey
from orders.order.model import MAX_ID
from orders.order.named_types import WITHOUT_NUL, Channel, SortBy, Status
from orders.order.parsing import CURSOR, parse_status_or_refuse
from orders.order.schema import AnyCustomer, Identifier
from orders.order.statuses import Workflow, status_key
from orders.wire.problems import refused_parameters, repeated_parameter

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MILLISECOND = timedelta(milliseconds=1)
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d))?", re.ASCII)
_METADATA = re.compile(r"metadata\[(.{1,100})\]", re.DOTALL)
_MEMBER = re.compile(r"[^=\x00]{1,100}=[^\x00]*")
_BRACKETED = re.compile(r"(\w+)\[(\w+)\]", re.ASCII)
_LAST_MS = 2**48 - 1
_NO_KEY = -(2**63)
_CURSOR = struct.Struct(">8sq16s")
MAX_METADATA_FILTERS = 5
MAY_REPEAT = frozenset({"status", "metadata"})
"""Parameters of lists that may come several times."""


def _moment(text: object) -> datetime:
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise ValueError(
            "must be a day (2026-11-23) or a time with its offset (2026-11-23T22:31:07Z; a + in it is %2B)"
        )
    moment = datetime.fromisoformat(text)
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("must be between the years 1 and 9999") from None


Moment = Annotated[datetime, BeforeValidator(_moment)]
Amount = Annotated[int, Field(ge=0, le=MAX_ID)]


def _ranged(name: str, bound: str, words: str, example: object) -> Any:
    """A parameter with two names, because generated clients can't have the brackets."""
    return Field(
        validation_alias=AliasChoices(f"{name}_{bound}", f"{name}[{bound}]"),
        description=f"Only orders {words} this. `{name}[{bound}]` is the same.",
        examples=[example],
    )


def _time(name: str, bound: str, words: str) -> Any:
    return _ranged(name, bound, words, "2026-11-23T00:00:00Z")


class OrderFilters(BaseModel):
    """Filters for orders, of all customers or of the one in the address. `metadata[key]=value` is another way to write
    `metadata=key=value`, and the only one for a key with an equals sign.
    """

    model_config = ConfigDict(extra="allow")  # for metadata[…]; other unknown parameters are refused in `to_filters`

    status: Annotated[
        list[Status],
        Field(
            description="Only orders with one of these statuses, also one that is not in the table and that an adopted "
            "order has. Without it: those that are placed."
        ),
    ] = []
    channel: Annotated[Channel | None, Field(description="Only orders that came through this sales channel.")] = None
    product_id: Annotated[Identifier | None, Field(description="Only orders that have this product.")] = None
    number: Annotated[Identifier | None, Field(description="Only the order with this number.")] = None
    external_reference: Annotated[
        str | None, Field(max_length=255, pattern=WITHOUT_NUL, description="Only the order with this reference.")
    ] = None
    metadata: Annotated[
        list[Annotated[str, Field(json_schema_extra={"pattern": f"^{_MEMBER.pattern}$"})]],
        Field(
            max_length=MAX_METADATA_FILTERS,
            description="`key=value`: only orders whose metadata has this member, a string of this value. "
            "`metadata[key]=value` is the same.",
            examples=[["channel=web"]],
        ),
    ] = []
    created_at_gte: Annotated[Moment | None, _time("created_at", "gte", "created at or after")] = None
    created_at_gt: Annotated[Moment | None, _time("created_at", "gt", "created after")] = None
    created_at_lte: Annotated[Moment | None, _time("created_at", "lte", "created at or before")] = None
    created_at_lt: Annotated[Moment | None, _time("created_at", "lt", "created before")] = None
    updated_at_gte: Annotated[Moment | None, _time("updated_at", "gte", "changed last at or after")] = None
    updated_at_gt: Annotated[Moment | None, _time("updated_at", "gt", "changed last after")] = None
    updated_at_lte: Annotated[Moment | None, _time("updated_at", "lte", "changed last at or before")] = None
    updated_at_lt: Annotated[Moment | None, _time("updated_at", "lt", "changed last before")] = None
    total_gte: Annotated[Amount | None, _ranged("total", "gte", "with a total of at least", 1000)] = None
    total_gt: Annotated[Amount | None, _ranged("total", "gt", "with a total of more than", 1000)] = None
    total_lte: Annotated[Amount | None, _ranged("total", "lte", "with a total of at most", 1000)] = None
    total_lt: Annotated[Amount | None, _ranged("total", "lt", "with a total of less than", 1000)] = None

    def to_filters(self, workflow: Workflow, customer_id: int | None = None, others: Collection[str] = ()) -> Filters:
        """The filters. `customer_id`: the customer in the address. `others`: statuses that orders have, maybe not in
        the table. Raises OrderError.
        """
        return Filters(
            statuses=tuple(dict.fromkeys(self._statuses(workflow, others))),
            customer_id=customer_id,
            channel=self.channel,
            product_id=self.product_id,
            number=self.number,
            external_reference=self.external_reference,
            metadata=self._members(),
            created=self._created(),
            updated=self._range("updated_at", _MICROSECOND),
            total=self._range("total", 1),
        )

    def names_unknown_status(self, workflow: Workflow) -> bool:
        """Whether a wanted status is not in the table. Adopted orders may have it all the same."""
        return not all(workflow.parse(text) for text in self.status)

    def _statuses(self, workflow: Workflow, others: Collection[str]) -> Iterator[str]:
        for text in self.status:
            found = [] if workflow.parse(text) else [s for s in others if status_key(s) == status_key(text)]
            yield from found or [parse_status_or_refuse(text, "query/status", workflow)]

    def _members(self) -> tuple[tuple[str, str], ...]:
        """The members that an order's metadata must have, without duplicates."""
        members = set(self._bracketed())
        for text in self.metadata:
            if not _MEMBER.fullmatch(text):
                message = "metadata: write it as key=value, with a key of 1 to 100 characters, none of them U+0000."
                raise invalid("query/metadata", "metadata_invalid", message)
            key, _, value = text.partition("=")
            members.add((key, value))
        if len(members) > MAX_METADATA_FILTERS:
            raise invalid("query/metadata", "too_long", f"At most {MAX_METADATA_FILTERS} members of the metadata.")
        return tuple(sorted(members))

    def _bracketed(self) -> Iterator[tuple[str, str]]:
        """The members that were sent as `metadata[key]=value`. Raises OrderError for any other unknown parameter."""
        for name, value in (self.model_extra or {}).items():
            key = _METADATA.fullmatch(name)
            if key is None:
                raise _twice_or_unknown(name, type(self))
            if not isinstance(value, str) or "\0" in name + value:
                message = f"{name[:60]} must be given once, as a text without the character U+0000."
                raise invalid(f"query/{name[:60]}", "metadata_invalid", message)
            yield key[1], value

    def _range(self, name: str, step: Any) -> Range[Any]:
        """The range that the parameters of `name` define. `step`: the smallest difference between two values."""
        at_least, more, at_most, less = (getattr(self, f"{name}_{bound}") for bound in ("gte", "gt", "lte", "lt"))
        least = [*_given(at_least), *(_next(value, step) for value in _given(more))]
        end = [*(_next(value, step) for value in _given(at_most)), *_given(less)]
        return Range(max(least, default=None), min(end, default=None))

    def _created(self) -> Range[UUID]:
        created = self._range("created_at", _MICROSECOND)
        least, end = created.least, created.end
        return Range(None if least is None else first_id(least), None if end is None else first_id(end))


class FilterQuery(OrderFilters):
    """Filters for the orders of all customers."""

    customer_id: Annotated[AnyCustomer | None, Field(description="Only this customer's orders.")] = None

    def to_filters(self, workflow: Workflow, customer_id: int | None = None, others: Collection[str] = ()) -> Filters:
        """The filters. Without a customer in the address, the parameter `customer_id` counts."""
        return super().to_filters(workflow, self.customer_id if customer_id is None else customer_id, others)


class Paging(BaseModel):
    """The sort, and the size of a page."""

    sort: SortBy = "-created_at"
    limit: Annotated[int, Field(ge=1, le=1000, description="Orders per page.")] = 100
    cursor: Annotated[
        str | None,
        Field(description="From the page before: see `next`.", json_schema_extra={"pattern": f"^{CURSOR}$"}),
    ] = None
    include_total: Annotated[
        bool,
        Field(description="Count all orders of the list, as `total_count`; null where it takes more than a second."),
    ] = False

    def to_sort(self) -> Sort:
        """The order of the list."""
        return Sort(SortKey(self.sort.removeprefix("-")), self.sort.startswith("-"))


class ListQuery(Paging, FilterQuery):
    """The parameters for a page of all orders."""


class CustomerListQuery(Paging, OrderFilters):
    """The parameters for a page of one customer's orders."""


class OneOrManyQuery(CustomerListQuery):
    """The parameters for one order, or for the list of a customer's orders."""

    at: Annotated[
        str | None,
        Field(
            description="For one order: as it was at this time (RFC 3339) or version.", max_length=60, examples=["2"]
        ),
    ] = None


PageQuery = ListQuery | CustomerListQuery


def parse_filters(texts: Sequence[str], workflow: Workflow, others: Callable[[], Collection[str]]) -> Filters:
    """The filters in texts like `name=value`, as in the address of a list. `others` reads the statuses that orders
    have.

    Raises OrderError.
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise invalid(f"query/{text}", "malformed", f"{text}: write it as name=value.")
        if name in given and name not in MAY_REPEAT:
            raise repeated_parameter(name)
        given[name] = [*given.get(name, []), value] if name in MAY_REPEAT else value
    try:
        query = FilterQuery.model_validate(given)
        return query.to_filters(workflow, others=others() if query.names_unknown_status(workflow) else ())
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise invalid(
            f"query/{name}", first["type"], f"{name}: {first['msg'].removeprefix('Value error, ')}."
        ) from None


def _twice_or_unknown(name: str, model: type[BaseModel]) -> OrderError:
    """The error (422) for an unknown parameter: it does not exist, or the same parameter was sent under
    its other name.
    """
    bracketed = _BRACKETED.fullmatch(name)
    other = "_".join(bracketed.groups()) if bracketed else name
    if bracketed and other in model.model_fields:
        return invalid(f"query/{name}", "duplicate", f"{name} and {other} are one parameter; send it once.")
    return refused_parameters([name])


def sent_as(field: str, names: Container[str]) -> str:
    """The name under which one of our parameters was sent: it has two."""
    name, _, bound = field.rpartition("_")
    return bracketed if (bracketed := f"{name}[{bound}]") in names else field


def _given(value: T | None) -> list[T]:
    return [] if value is None else [value]


def _next(value: Any, step: Any) -> Any:
    """The next larger value. The largest possible value stays as it is."""
    try:
        return value + step
    except OverflowError:
        return value


def first_id(moment: datetime) -> UUID:
    """The smallest possible ID of an order that was created at `moment` or later. IDs count milliseconds."""
    ms = -((_EPOCH - moment) // _MILLISECOND)
    return UUID(int=min(max(ms, 0), _LAST_MS) << 80)


def next_url(path: str, asked: str, query: PageQuery, filters: Filters, end: Position | None) -> str | None:
    """The address of the page that begins at `end`. It keeps all parameters that the client `asked` with, as they were
    sent.
    """
    if end is None:
        return None
    parameters: dict[str, Any] = parse_qs(asked, keep_blank_values=True)
    parameters.pop("cursor", None)
    parameters |= {"limit": query.limit, "cursor": cursor_for(end, filters, query.to_sort())}
    return f"{path}?{urlencode(parameters, doseq=True, safe='[]:')}"


def cursor_for(position: Position, filters: Filters, sort: Sort) -> str:
    """An opaque cursor for the page after this place in this list."""
    key = position.key
    number = (key - _EPOCH) // _MICROSECOND if isinstance(key, datetime) else _NO_KEY if key is None else key
    packed = _CURSOR.pack(_fingerprint(filters, sort), number, position.id.bytes)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def parse_cursor(cursor: str | None, filters: Filters, sort: Sort) -> Position | None:
    """The place of a cursor for this list. Raises OrderError.

    Cursors are not signed. Any cursor means a key and an ID of the right types, so the page stays an index range.
    """
    if cursor is None:
        return None
    if not re.fullmatch(CURSOR, cursor):
        raise _cursor_invalid("This cursor is not one of ours; begin without.")
    fingerprint, number, order_id = _CURSOR.unpack(base64.urlsafe_b64decode(f"{cursor}="))
    try:
        position = Position(_sort_key(number, sort), UUID(bytes=order_id))
    except (ValueError, OverflowError):
        raise _cursor_invalid("This cursor is not one of ours; begin without.") from None
    if fingerprint != _fingerprint(filters, sort):
        raise _cursor_invalid("This cursor is of a list with other filters or another sort; begin without.")
    return position


def _sort_key(number: int, sort: Sort) -> datetime | int | None:
    if number == _NO_KEY or sort.by is SortKey.CREATED_AT:
        return None
    return _EPOCH + number * _MICROSECOND if sort.by is SortKey.UPDATED_AT else number


def _cursor_invalid(message: str) -> OrderError:
    return invalid("query/cursor", "cursor_invalid", message)


def _fingerprint(filters: Filters, sort: Sort) -> bytes:
    return hashlib.sha256(f"{filters!r} {sort!r}{filters.channel or ''}".encode()).digest()[:8]
