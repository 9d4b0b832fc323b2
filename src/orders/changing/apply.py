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
from orders.order.idempotency import Answer, order_answer, replay
from orders.order.keys_sql import KeyInUse
from orders.postgres.database import Database
from orders.postgres.lanes import Lane


class Apply(Protocol):
    """Applies a decision about one order. `ForReal` writes it. `ChangingDryRun` rolls it back."""

    async def change(
        self, order_id: UUID, wanted: str | None, decide: Decide, key: RequestKey | None = None
    ) -> Document | KeyInUse | None:
        """The changed order (of a dry run: the preview), the known use of the key, or None if there is no such order.

        `wanted` is the wanted status (None: the one that the order has). Raises what `decide` raises, KeyTaken and
        ReferenceTaken. Then nothing was changed.
        """
        ...


@dataclass(frozen=True, slots=True)
class ForReal:
    """Changes orders in the database."""

    database: Database

    async def change(
        self, order_id: UUID, wanted: str | None, decide: Decide, key: RequestKey | None = None
    ) -> Document | KeyInUse | None:
        """As `Apply` says."""
        return await self.database.run(lambda c: change_order(c, order_id, wanted, decide, key), Lane.CHANGES)


async def change_once(
    apply: Apply, order_id: UUID, wanted: str | None, decide: Decide, key: str | None = None, request: object = None
) -> Answer:
    """Change the order. With a key, a repetition of the same request gets the first answer. Raises OrderError."""
    fingerprint = hashlib.sha256(json.dumps(request).encode()).digest()
    try:
        outcome = await apply.change(order_id, wanted, decide, RequestKey(key, fingerprint) if key else None)
    except KeyTaken:
        raise OrderError(Code.KEY_REUSED, "This Idempotency-Key was used with another request.") from None
    if outcome is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
    return replay(outcome, fingerprint) if isinstance(outcome, KeyInUse) else order_answer(200, outcome)
