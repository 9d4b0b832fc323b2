"""Applies a decision about one order: for real or as a dry run, and once per Idempotency-Key."""

import hashlib
import json
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from orders.changing.change import Decide
from orders.changing.change_sql import KeyTaken, RequestKey, change_order
from orders.errors import Code, OrderError
from orders.order.document import Document
from orders.order.idempotency import Answer, ClientKey, Keyed, order_answer, replay
from orders.order.keys_sql import KeyInUse
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.principal import Seer


class Apply(Protocol):
    """Applies a decision about one order. `ForReal` writes it. `Rehearsed` rolls it back."""

    async def change(
        self, order_id: UUID, wanted: str | None, decide: Decide, key: RequestKey | None = None
    ) -> Document | KeyInUse | None:
        """The changed order (of a dry run: the preview), the known use of the key, or None if there is no such order
        that the seer sees.

        `wanted` is the wanted status (None: the one that the order has). Raises what `decide` raises, KeyTaken and
        ReferenceTaken. Then nothing was changed.
        """
        ...


@dataclass(frozen=True, slots=True)
class ForReal:
    """Changes orders that the seer sees, in the database."""

    database: Database
    seer: Seer

    async def change(
        self, order_id: UUID, wanted: str | None, decide: Decide, key: RequestKey | None = None
    ) -> Document | KeyInUse | None:
        """As `Apply` says."""
        return await self.database.run(
            lambda c: change_order(c, self.seer, order_id, wanted, decide, key), Lane.CHANGES
        )


def request_key(key: ClientKey | None, operation: Keyed, request: object) -> RequestKey | None:
    """The client's key as it is stored for this request. None without a key."""
    if key is None:
        return None
    fingerprint = hashlib.sha256(json.dumps(request).encode()).digest()
    return RequestKey(key.stored(operation), fingerprint, key.once_stored)


async def change_once(
    apply: Apply, order_id: UUID, wanted: str | None, decide: Decide, key: RequestKey | None = None
) -> Answer:
    """Change the order. With a key, a repetition of the same request gets the first answer. Raises OrderError."""
    try:
        outcome = await apply.change(order_id, wanted, decide, key)
    except KeyTaken:
        raise OrderError(Code.KEY_REUSED, "This Idempotency-Key was used with another request.") from None
    if outcome is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
    if isinstance(outcome, KeyInUse):
        return replay(outcome, key.fingerprint if key else b"")
    return order_answer(200, outcome)
