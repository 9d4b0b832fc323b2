"""Moving an order to another status, through the one table of what may follow what."""

from uuid import UUID

from orders.database import Database
from orders.errors import Code, OrderError
from orders.order import Status, allowed_statuses, gives_stock_back
from orders.store.status import Standing, read_standing, write_status


async def change_status(database: Database, order_id: UUID, status: Status) -> str:
    """Move the order and return its JSON; the status it has already changes nothing.

    Two at the same moment: the second is judged by what the first has made of the order. Raises OrderError.
    """
    while True:
        standing = await database.run(lambda c: read_standing(c, order_id))
        if standing is None:
            raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
        if standing.status == status:
            return standing.body
        _require_allowed(standing, status)
        body = await database.run(
            lambda c, s=standing: write_status(  # type: ignore[misc]  # mypy can't infer a lambda's default
                c, order_id, s.version, status, _held_from(s, status), give_back=gives_stock_back(status)
            )
        )
        if body is not None:
            return body


def _require_allowed(standing: Standing, status: Status) -> None:
    allowed = allowed_statuses(standing.status, standing.held_from, adopted=standing.adopted)
    if status not in allowed:
        names = ", ".join(allowed) or "nothing: it is final"
        raise OrderError(
            Code.STATUS_NOT_ALLOWED,
            f"An order that is {standing.status} can't become {status}; it can become {names}.",
            extra={"allowed_statuses": list(allowed)},
        )


def _held_from(standing: Standing, status: Status) -> str | None:
    return standing.status if status is Status.ON_HOLD else None
