"""`POST /orders:batch`: many orders placed in one request, each with its own result."""

import itertools
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from orders.errors import invalid
from orders.order.idempotency import ClientKey
from orders.order.schema import WHOLE, Identifier
from orders.placing.bulk import place_each
from orders.placing.routes import checkout_request
from orders.placing.schemas import OrderToPlace
from orders.placing.service import placing
from orders.principal import Principal
from orders.wire.asking import author_of, principal_of
from orders.wire.bodies import BodyRoute
from orders.wire.bulk import PROBLEMS, RESULTS, answered_each, previewed_each, refuse_header, refuse_twice
from orders.wire.costs import ENTRIES, LINES, take
from orders.wire.dry_run import DryRun
from orders.wire.operations import operation_id
from orders.wire.parameters import Actor
from orders.wire.problems import problem_responses

PLACED_AT_ONCE = 100
"""Orders in one POST: each may need the cart service and its own products, and all share one deadline."""


LINES_AT_ONCE = 2000
"""Maximum number of lines of all orders in one POST: each may be a product that the catalog has to be asked for."""


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


router = APIRouter(route_class=BodyRoute, generate_unique_id_function=operation_id)


@router.post(
    "/orders:batch",
    summary="Place many orders",
    tags=["orders"],
    responses={**RESULTS, **problem_responses(*PROBLEMS)},
)
async def place_orders(request: Request, body: OrdersToPlace, dry_run: DryRun, actor: Actor = None) -> Response:
    """Places up to 100 orders, each for itself. They ride on the same batches as single orders do, together.

    Give each its `idempotency_key`: where no answer came, send the same request again. What was placed is answered as
    `replayed`, the rest is placed now. Orders of one cart are one order.
    """
    refuse_header(request, "Idempotency-Key", "each order has its own `idempotency_key`")
    refuse_twice((one.idempotency_key for one in body.orders), "idempotency_key", "this key")
    service, author, instance = placing(request), author_of(request, actor), request.url.path
    ahead = _refuse_too_many_lines(body.orders)
    take(request, len(body.orders) / ENTRIES + sum(len(one.items or ()) for one in body.orders) / LINES)
    principal = principal_of(request)
    asked = [
        checkout_request(principal, one.customer_id, one, _key(one, principal), f"#/orders/{n}", before)
        for n, (one, before) in enumerate(zip(body.orders, ahead, strict=True))
    ]
    if dry_run:
        return previewed_each(*await service.dry_run.place_each(asked, instance, author))
    return answered_each(await place_each(service.checkout, asked, instance, author))


def _key(one: EntryToPlace, principal: Principal) -> ClientKey | None:
    return None if one.idempotency_key is None else ClientKey(principal.owner, one.idempotency_key)


def _refuse_too_many_lines(orders: Sequence[EntryToPlace]) -> list[int]:
    """How many lines stand before each order. Raises OrderError: there are too many in all."""
    counts = [len(one.items or ()) for one in orders]
    *ahead, total = itertools.accumulate(counts, initial=0)
    if total > LINES_AT_ONCE:
        n = next(n for n, before in enumerate([*ahead[1:], total]) if before > LINES_AT_ONCE)
        message = f"One request has at most {LINES_AT_ONCE} lines in all; these are {total}. Send some orders apart."
        raise invalid(f"#/orders/{n}/items", "too_long", message)
    return ahead
