"""`/orders:batch`: many orders placed or moved in one request, each with its own result."""

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from orders import bulk
from orders.bulk import Move, Result, Wish
from orders.changing.move import Asked
from orders.dry_run import Stock, stock_json
from orders.errors import Code, invalid
from orders.order.model import Author, Line
from orders.order.named_types import Status
from orders.order.schema import (
    ID_EXAMPLE,
    ORDER_EXAMPLE,
    WHOLE,
    Identifier,
    Note,
    Order,
    OrderEvent,
    OrderToPlace,
    Problem,
    parse_order_id,
    parse_status_or_refuse,
    problem_responses,
)
from orders.order_routes import details_of
from orders.shop import Shop, operation_id
from orders.wire.bodies import BodyRoute
from orders.wire.dry_run import RESULT_EXAMPLE, STOCK_EXAMPLE, DryRun, PreviewedOrder, StockChange
from orders.wire.parameters import Actor

PLACED_AT_ONCE = 100
"""Orders in one POST: each may need the cart service and its own products, and all share one deadline."""

LINES_AT_ONCE = 2000
"""Maximum number of lines of all orders in one POST: each may be a product that the catalog has to be asked for."""

MOVED_AT_ONCE = 1000
"""Orders in one PUT: with all or nothing they are locked together, until the last of them is written."""


def _as_order_id(text: str) -> str:
    if parse_order_id(text) is None:
        raise PydanticCustomError("uuid_parsing", "An order's ID is a UUID")
    return text


class EntryToPlace(OrderToPlace):
    """An order to place, as in `POST /orders/{customer_id}`. Without `items`: the customer's shopping cart."""

    customer_id: Annotated[Identifier, WHOLE]
    idempotency_key: Annotated[
        Annotated[str, Field(pattern="^[!-~]{1,255}$")] | None,
        Field(description="What the header `Idempotency-Key` is to a single order.", examples=["7f3d2c1e"]),
    ] = None


class OrdersToPlace(BaseModel):
    """Orders to place, at most 100."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "orders": [
                        {"customer_id": 42, "items": [{"product_id": 7, "quantity": 2}], "idempotency_key": "7f3d2c1e"},
                        {"customer_id": 43, "idempotency_key": "7f3d2c1f"},
                    ]
                }
            ]
        },
    )

    orders: Annotated[list[EntryToPlace], Field(min_length=1, max_length=PLACED_AT_ONCE)]


class EntryToMove(BaseModel):
    """An order, and the status to move it to. With `version`: only if it still has that one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, AfterValidator(_as_order_id), Field(examples=[ID_EXAMPLE], json_schema_extra={"format": "uuid"})]
    status: Status
    version: Annotated[int, Field(ge=1, le=2**31 - 1), WHOLE] | None = None
    note: Note = None


ErrorPolicy = TypeAliasType(
    "ErrorPolicy",
    Annotated[
        Literal["each", "all_or_nothing"],
        Field(description="`each`: every order for itself. `all_or_nothing`: where one is refused, none is moved."),
    ],
)


class OrdersToMove(BaseModel):
    """Orders to move, at most 1000, each at most once."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "orders": [{"id": ID_EXAMPLE, "status": "Shipped", "version": 3, "note": "On van 5."}],
                    "error_policy": "each",
                }
            ]
        },
    )

    orders: Annotated[list[EntryToMove], Field(min_length=1, max_length=MOVED_AT_ONCE)]
    error_policy: ErrorPolicy = "each"


class OrderInShort(BaseModel):
    """An order for which there is no room in this answer: read the rest by its ID."""

    id: UUID | None
    status: Status
    version: int


InShort = Annotated[
    OrderInShort | None, Field(description="Instead of `order`, once the orders of an answer have come to 4 MiB.")
]


class BatchResult(BaseModel):
    """What became of one entry: `status` is the HTTP status that it would have had alone. With it comes the `order` (or
    `order_in_short`), or the `problem`, whose pointers are those of the entry.
    """

    status: int
    order: Annotated[Order | None, Field(description="As it is now.")] = None
    order_in_short: InShort = None
    problem: Problem | None = None
    replayed: Annotated[bool | None, Field(description="True where this repeats an earlier answer.")] = None
    retry_after_s: Annotated[int | None, Field(description="Worth asking again after so many seconds.")] = None


class PreviewedResult(BatchResult):
    """What would become of one entry."""

    order: Annotated[PreviewedOrder | None, Field(description="As it would be.")] = None
    events: Annotated[list[OrderEvent] | None, Field(description="Those that would be written.")] = None


_REFUSED_EXAMPLE: dict[str, Any] = {
    "status": 404,
    "problem": {
        "type": "/problems/cart_not_found",
        "title": "The customer has no active cart",
        "status": 404,
        "detail": "Customer 43 has no active cart.",
        "instance": "/orders:batch",
        "code": "cart_not_found",
    },
}


class BatchResults(BaseModel):
    """A result for each entry, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"results": [{"status": 201, "order": ORDER_EXAMPLE}, _REFUSED_EXAMPLE]}}
    )

    results: list[BatchResult]


class BatchPreview(BaseModel):
    """What would become of each entry, in the order of the request, and of the stock."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "dry_run": True,
                "results": [{"status": 201, **RESULT_EXAMPLE}, _REFUSED_EXAMPLE],
                "stock": STOCK_EXAMPLE,
            }
        }
    )

    dry_run: Literal[True]
    results: list[PreviewedResult]
    stock: Annotated[list[StockChange], Field(description="The products whose stock would change.")]


router = APIRouter(route_class=BodyRoute, generate_unique_id_function=operation_id)

_RESULTS: dict[int | str, dict[str, Any]] = {
    200: {"model": BatchResults, "description": "What became of each, also where all were refused"}
}
_PROBLEMS = (Code.BODY_TOO_LARGE, Code.INVALID_REQUEST, Code.DATABASE_UNAVAILABLE)


@router.post(
    "/orders:batch",
    summary="Place many orders",
    tags=["orders"],
    responses={**_RESULTS, **problem_responses(*_PROBLEMS)},
)
async def place_orders(request: Request, body: OrdersToPlace, dry_run: DryRun, actor: Actor = "api") -> Response:
    """Places up to 100 orders, each for itself. They ride on the same batches as single orders do, together.

    Give each its `idempotency_key`: where no answer came, send the same request again. What was placed is answered as
    `replayed`, the rest is placed now. Orders of one cart are one order.
    """
    _refuse_header(request, "Idempotency-Key", "each order has its own `idempotency_key`")
    _refuse_twice((one.idempotency_key for one in body.orders), "idempotency_key", "this key")
    shop, author, instance = _asked(request, actor)
    ahead = _refuse_too_many_lines(body.orders)
    wishes = [
        Wish(one.customer_id, _items(one), one.idempotency_key, details_of(one), before)
        for one, before in zip(body.orders, ahead, strict=True)
    ]
    if dry_run:
        return _previewed(*await shop.rehearsal.place_each(wishes, instance, author))
    return _answered(await bulk.place_each(shop.checkout, wishes, instance, author))


@router.put(
    "/orders:batch",
    summary="Change the status of many orders",
    tags=["orders"],
    responses={**_RESULTS, **problem_responses(Code.BATCH_REFUSED, *_PROBLEMS)},
)
async def change_order_statuses(
    request: Request, body: OrdersToMove, dry_run: DryRun, actor: Actor = "api"
) -> Response:
    """Moves up to 1000 orders by the same rules as `PUT /orders/{order_id}`; `version` says what `If-Match` does there.

    Safe to repeat: the status that an order has already changes nothing. With `all_or_nothing` the answer is 409 where
    one is refused, and `errors` names each of them.
    """
    _refuse_header(request, "If-Match", "each order has its own `version`")
    shop, author, instance = _asked(request, actor)
    moves = [_move(n, one, shop, author) for n, one in enumerate(body.orders)]
    _refuse_twice((m.order_id for m in moves), "id", "this order")
    needs_version, all_or_nothing = shop.needs_if_match, body.error_policy == "all_or_nothing"
    if dry_run:
        return _previewed(
            *await shop.rehearsal.move_each(moves, instance, needs_version=needs_version, all_or_nothing=all_or_nothing)
        )
    if all_or_nothing:
        return _answered(await bulk.move_all(shop.database, moves, needs_version=needs_version))
    return _answered(await bulk.move_each(shop.database, moves, instance, needs_version=needs_version))


def _asked(request: Request, actor: str) -> tuple[Shop, Author, str]:
    return request.app.state.shop, Author(actor, request.state.request_id), request.url.path


def _refuse_too_many_lines(orders: Sequence[EntryToPlace]) -> list[int]:
    """How many lines stand before each order. Raises OrderError: there are too many in all."""
    counts = [len(one.items or ()) for one in orders]
    *ahead, total = itertools.accumulate(counts, initial=0)
    if total > LINES_AT_ONCE:
        n = next(n for n, before in enumerate([*ahead[1:], total]) if before > LINES_AT_ONCE)
        message = f"One request has at most {LINES_AT_ONCE} lines in all; these are {total}. Send some orders apart."
        raise invalid(f"#/orders/{n}/items", "too_long", message)
    return ahead


def _items(one: EntryToPlace) -> list[Line] | None:
    return None if one.items is None else [Line(item.product_id, item.quantity) for item in one.items]


def _move(n: int, one: EntryToMove, shop: Shop, author: Author) -> Move:
    order_id = parse_order_id(one.id)
    assert order_id is not None  # validated
    status = parse_status_or_refuse(one.status, f"#/orders/{n}/status", shop.workflow)
    versions = None if one.version is None else (one.version,)
    return Move(order_id, status, Asked(author, None, one.note, versions))


def _refuse_header(request: Request, name: str, instead: str) -> None:
    """A header that is meant for one order would be ignored: nobody would be told."""
    if name in request.headers:
        raise invalid(f"header/{name}", "extra_forbidden", f"{name} is for a single order; here {instead}.")


def _refuse_twice(values: Iterable[Hashable], member: str, what: str) -> None:
    """What would be said twice about one thing is refused before anything is done."""
    given = list(values)
    twice = {value for value, count in Counter(given).items() if count > 1 and value is not None}
    if twice:
        n = max(n for n, value in enumerate(given) if value in twice)
        message = f"Entries {given.index(given[n])} and {n} both have {what}; send it once."
        raise invalid(f"#/orders/{n}/{member}", "duplicate", message)


def _answered(results: Sequence[Result]) -> Response:
    return Response(f'{{"results":[{_join(results)}]}}', media_type="application/json")


def _previewed(results: Sequence[Result], stock: Stock) -> Response:
    body = f'{{"dry_run":true,"results":[{_join(results)}],"stock":{stock_json(stock)}}}'
    return Response(body, media_type="application/json")


def _join(results: Sequence[Result]) -> str:
    return ",".join(result.json() for result in results)
