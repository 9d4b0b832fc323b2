"""`PUT /orders:batch`: many orders moved in one request, each with its own result."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from orders.changing.bulk import Move, move_all, move_each
from orders.changing.rules import Asked
from orders.changing.service import Changing, changing
from orders.errors import Code
from orders.order.model import Author
from orders.order.named_types import Status
from orders.order.parsing import parse_order_id, parse_status_or_refuse
from orders.order.schema import ID_EXAMPLE, WHOLE, Note
from orders.wire.asking import author_of, seer_of
from orders.wire.bodies import BodyRoute
from orders.wire.bulk import PROBLEMS, RESULTS, answered_each, previewed_each, refuse_header, refuse_twice
from orders.wire.costs import ENTRIES, take
from orders.wire.dry_run import DryRun
from orders.wire.operations import operation_id
from orders.wire.parameters import Actor
from orders.wire.problems import problem_responses

MOVED_AT_ONCE = 1000
"""Maximum number of orders in one PUT. With all or nothing, they all stay locked until the last one is written."""


def _as_order_id(text: str) -> str:
    if parse_order_id(text) is None:
        raise PydanticCustomError("uuid_parsing", "An order's ID is a UUID")
    return text


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


router = APIRouter(route_class=BodyRoute, generate_unique_id_function=operation_id)


@router.put(
    "/orders:batch",
    summary="Change the status of many orders",
    tags=["orders"],
    responses={**RESULTS, **problem_responses(Code.BATCH_REFUSED, *PROBLEMS)},
)
async def change_order_statuses(request: Request, body: OrdersToMove, dry_run: DryRun, actor: Actor = None) -> Response:
    """Moves up to 1000 orders by the same rules as `PUT /orders/{order_id}`; `version` says what `If-Match` does there.

    Safe to repeat: the status that an order has already changes nothing. With `all_or_nothing` the answer is 409 where
    one is refused, and `errors` names each of them.
    """
    refuse_header(request, "If-Match", "each order has its own `version`")
    service, seer, author, instance = changing(request), seer_of(request), author_of(request, actor), request.url.path
    take(request, len(body.orders) / ENTRIES)
    moves = [_move(n, one, service, author) for n, one in enumerate(body.orders)]
    refuse_twice((m.order_id for m in moves), "id", "this order")
    all_or_nothing = body.error_policy == "all_or_nothing"
    if dry_run:
        return previewed_each(
            *await service.dry_run.move_each(
                seer, moves, instance, needs_version=service.needs_if_match, all_or_nothing=all_or_nothing
            )
        )
    if all_or_nothing:
        return answered_each(await move_all(service.database, seer, moves, needs_version=service.needs_if_match))
    return answered_each(await move_each(service.database, seer, moves, instance, needs_version=service.needs_if_match))


def _move(n: int, one: EntryToMove, service: Changing, author: Author) -> Move:
    order_id = parse_order_id(one.id)
    assert order_id is not None  # validated
    status = parse_status_or_refuse(one.status, f"#/orders/{n}/status", service.workflow)
    versions = None if one.version is None else (one.version,)
    return Move(order_id, status, Asked(author, None, one.note, versions))
