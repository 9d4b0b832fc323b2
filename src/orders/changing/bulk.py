"""Moving many orders in one request: each for itself, or all or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.changing.change import Change, DecideMany, Decisions, OrderState
from orders.changing.change_sql import ChangedOrders, change_orders
from orders.changing.move import move
from orders.changing.rules import Asked
from orders.errors import Code, OrderError
from orders.order.results import MAX_ANSWER_BYTES, Result, as_order_error, refused, results_of, shown
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.principal import Seer

AT_ONCE = 200
"""Maximum number of orders that one transaction locks and moves: a thousand cost five commits."""


@dataclass(frozen=True, slots=True)
class Move:
    """An order, and its wanted status."""

    order_id: UUID
    status: str
    asked: Asked


async def move_each(
    database: Database, seer: Seer, moves: Sequence[Move], instance: str, *, needs_version: bool = False
) -> list[Result]:
    """Move each of these orders for itself. No order may be there twice. Raises nothing."""
    results: dict[UUID, Result] = {}
    room = MAX_ANSWER_BYTES
    # Sorted by ID: two calls lock in the same order, so there is no deadlock.
    in_order = sorted(moves, key=lambda m: m.order_id)
    for some in [in_order[n : n + AT_ONCE] for n in range(0, len(moves), AT_ONCE)]:
        decide = judge(some, needs_version=needs_version)
        try:
            changed = await _change(database, seer, some, decide, room)
        except Exception as error:
            results |= dict.fromkeys((m.order_id for m in some), refused(as_order_error(error), instance))
        else:
            results |= results_of(changed.orders, changed.refused, instance)
            room -= sum(len(order.json.encode()) for order in changed.orders.values())
    return [results[m.order_id] for m in moves]


async def move_all(
    database: Database, seer: Seer, moves: Sequence[Move], *, needs_version: bool = False
) -> list[Result]:
    """Move all of these orders in one transaction. Raises OrderError with each refusal. Then nothing was changed."""
    decide = judge(moves, needs_version=needs_version, all_or_nothing=True)
    changed = await _change(database, seer, moves, decide, MAX_ANSWER_BYTES)
    return [Result(200, shown(changed.orders[m.order_id])) for m in moves]


async def _change(
    database: Database, seer: Seer, moves: Sequence[Move], decide: DecideMany, max_bytes: int
) -> ChangedOrders:
    wanted = wanted_by(moves)
    return await database.run(lambda c: change_orders(c, seer, wanted, decide, max_bytes), Lane.CHANGES)


def wanted_by(moves: Sequence[Move]) -> dict[UUID, str]:
    """The wanted status of each order."""
    return {m.order_id: m.status for m in moves}


def judge(moves: Sequence[Move], *, needs_version: bool, all_or_nothing: bool = False) -> DecideMany:
    """A function that decides about all these orders. With `all_or_nothing` it raises OrderError at a refusal."""

    def decide(states: Mapping[UUID, OrderState]) -> Decisions:
        changes: list[Change] = []
        refused: dict[UUID, OrderError] = {}
        for one in moves:
            try:
                if change := _judge_one(one, states.get(one.order_id), needs_version=needs_version):
                    changes.append(change)
            except OrderError as error:
                refused[one.order_id] = error
        if refused and all_or_nothing:
            raise _nothing_changed(moves, refused)
        return Decisions(changes, refused)

    return decide


def _judge_one(one: Move, state: OrderState | None, *, needs_version: bool) -> Change | None:
    if needs_version and one.asked.versions is None:
        raise OrderError(Code.IF_MATCH_REQUIRED, "Send the order's `version`, as you read it.")
    if state is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {one.order_id}.")
    return move(state, one.status, one.asked)


def _nothing_changed(moves: Sequence[Move], errors: Mapping[UUID, OrderError]) -> OrderError:
    """The error (409) with each order that was refused."""
    found = [
        {
            "pointer": f"#/orders/{n}",
            "code": errors[m.order_id].code.name.lower(),
            "message": errors[m.order_id].detail,
            "id": str(m.order_id),
            **errors[m.order_id].extra,
        }
        for n, m in enumerate(moves)
        if m.order_id in errors
    ]
    detail = f"{len(found)} of {len(moves)} orders can't be moved, so none was. The first: {found[0]['message']}"
    return OrderError(Code.BATCH_REFUSED, detail, extra={"errors": found})
