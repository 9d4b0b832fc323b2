"""The routes of reports: totals for people."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from orders.errors import Code, invalid
from orders.finding import reports_sql
from orders.finding.parameters import EACH_ONCE
from orders.finding.reports_sql import read_product_sales, read_sales, read_sales_by_channel, read_standings
from orders.finding.service import finding
from orders.order.named_types import Channel, Status
from orders.wire.asking import seer_of
from orders.wire.operations import operation_id
from orders.wire.problems import problem_responses

router = APIRouter(
    prefix="/reports", tags=["reports"], generate_unique_id_function=operation_id, dependencies=EACH_ONCE
)

Period = TypeAliasType("Period", Literal[reports_sql.Period, "channel"])
Measure = TypeAliasType("Measure", reports_sql.Measure)

MAX_DAYS = 3_660
USUAL_DAYS = 30
_PROBLEMS = problem_responses(Code.INVALID_REQUEST, Code.TOO_SLOW, Code.DATABASE_UNAVAILABLE)
_EXAMPLE_SUMS = {"orders": 3, "units": 7, "revenue": 70}


class Span(BaseModel):
    """The parameters for the days from one to another, both included. Days are UTC."""

    model_config = ConfigDict(extra="forbid")

    first: Annotated[
        date | None, Field(alias="from", description="The first day; without it: 29 days before `to`.")
    ] = None
    last: Annotated[date | None, Field(alias="to", description="The last day; without it: today.")] = None

    def days(self) -> tuple[date, date]:
        """The first day and the last. Raises OrderError."""
        last = self.last or datetime.now(UTC).date()
        first = self.first or last - timedelta(days=min(USUAL_DAYS - 1, last.toordinal() - 1))
        if first > last:
            which = "`to`" if self.last else "today, which `to` is where it is left out"
            raise invalid("query/from", "span_invalid", f"from: {first} is after {last}, {which}.")
        if (last - first).days >= MAX_DAYS or first.year < 1971:
            raise invalid("query/from", "span_invalid", f"At most {MAX_DAYS} days, from 1971 on.")
        return first, last


class OfChannel(BaseModel):
    """The parameter of all reports."""

    model_config = ConfigDict(extra="forbid")

    channel: Annotated[Channel | None, Field(description="Only orders that came through this channel.")] = None


class SalesQuery(Span, OfChannel):
    """The parameters of the sales report."""

    by: Annotated[
        Period,
        Field(description="A line per day, per week (from Monday), per month, or per channel (for the whole span)."),
    ] = "day"


class ProductsQuery(Span, OfChannel):
    """The parameters of the products report."""

    by: Annotated[Measure, Field(description="What counts for being at the top.")] = "units"
    limit: Annotated[int, Field(ge=1, le=1000, description="How many products.")] = 20


OnlyChannel = Annotated[str | None, Field(description="The only channel whose orders are counted. Null: all orders.")]


class Sums(BaseModel):
    """Orders, units of all products, and money in the catalog's own unit."""

    orders: int
    units: int
    revenue: int


class SalesOfPeriod(Sums):
    """The sales of a day, of a week or of a month, as far as it is in the span; or of a channel in the whole span."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"from": "2026-11-23", "to": "2026-11-23", "channel": None, **_EXAMPLE_SUMS}}
    )

    first: Annotated[date, Field(alias="from")]
    last: Annotated[date, Field(alias="to")]
    channel: Annotated[
        str | None, Field(description="With `by=channel`: the channel, or null for orders without one. Otherwise null.")
    ]


class SalesReport(BaseModel):
    """What was sold, period by period, and altogether."""

    first: Annotated[date, Field(alias="from")]
    last: Annotated[date, Field(alias="to")]
    by: Period
    channel: OnlyChannel
    currency: str
    periods: list[SalesOfPeriod]
    total: Sums


class SalesOfProduct(Sums):
    """What was sold of a product. `name` is that of its last order."""

    product_id: int
    name: str | None


class ProductsReport(BaseModel):
    """The products that sold most."""

    first: Annotated[date, Field(alias="from")]
    last: Annotated[date, Field(alias="to")]
    by: Measure
    channel: OnlyChannel
    currency: str
    products: list[SalesOfProduct]


class StatusCount(BaseModel):
    """How many orders stand at this status, and since when: the one that has stood there longest, and the one in the
    middle. Null: nobody recorded it (adopted orders).
    """

    status: Status
    orders: int
    oldest_since: datetime | None
    median_since: datetime | None


class StatusesReport(BaseModel):
    """The statuses at which placed orders stand."""

    channel: OnlyChannel
    statuses: list[StatusCount]


@router.get("/sales", summary="Sales by day, week or month", responses={200: {"model": SalesReport}, **_PROBLEMS})
async def report_sales(request: Request, query: Annotated[SalesQuery, Query()]) -> Any:
    """The orders that were created in the span and are not cancelled, as they stand now: an order that is cancelled
    later leaves the report of its day, one that is returned stays. Adopted orders have no time and are in no report.
    """
    (first, last), seer, by = query.days(), seer_of(request), query.by
    sales = await finding(request).read_slowly(
        lambda c: (
            read_sales_by_channel(c, seer, query.channel, first, last)
            if by == "channel"
            else read_sales(c, seer, query.channel, by, first, last)
        )
    )
    ends = [last if by == "channel" else period.begin - timedelta(days=1) for period in sales[1:]]
    ends += [last] if sales else []
    return {
        "from": first,
        "to": last,
        "by": by,
        "channel": query.channel or seer.channel,
        "currency": "USD",
        "periods": [
            {"from": p.begin, "to": end, "channel": p.channel, **{name: getattr(p, name) for name in Sums.model_fields}}
            for p, end in zip(sales, ends, strict=True)
        ],
        "total": {name: sum(getattr(p, name) for p in sales) for name in Sums.model_fields},
    }


@router.get("/products", summary="Top sellers", responses={200: {"model": ProductsReport}, **_PROBLEMS})
async def report_products(request: Request, query: Annotated[ProductsQuery, Query()]) -> Any:
    """The products that sold most in the span, counted as in `/reports/sales`."""
    (first, last), seer = query.days(), seer_of(request)
    products = await finding(request).read_slowly(
        lambda c: read_product_sales(c, seer, query.channel, query.by, first, last, query.limit)
    )
    head = {"from": first, "to": last, "by": query.by, "channel": query.channel or seer.channel, "currency": "USD"}
    return {**head, "products": products}


@router.get(
    "/statuses",
    summary="How many orders stand where, and since when",
    responses={200: {"model": StatusesReport}, **_PROBLEMS},
)
async def report_statuses(request: Request, query: Annotated[OfChannel, Query()]) -> Any:
    """Placed orders by status, in the order of an order's life."""
    service, seer = finding(request), seer_of(request)
    standings = await service.read_slowly(lambda c: read_standings(c, seer, query.channel))
    place = {status: n for n, status in enumerate(service.workflow.by_name)}
    statuses = sorted(standings, key=lambda s: (place.get(s.status, len(place)), s.status))
    return {"channel": query.channel or seer.channel, "statuses": statuses}
