"""Doing what is decided about one order, for real or as a dry run; once per Idempotency-Key."""

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
    """Does what is decided about one order: `ForReal`, or `ChangingDryRun`, which rolls it back."""

    async def change(
        self, order_id: UUID, wanted: str | None, decide: Decide, key: RequestKey | None = None
    ) -> Document | KeyInUse | None:
        """The order (of a dry run: the preview), or what the key stands for already; None: there is no order.

        `wanted` is the status that it is to have (None: the one that it has). Raises what `decide` raises, KeyTaken and
        ReferenceTaken; then nothing was changed.
        """
        ...


@dataclass(frozen=True, slots=True)
class ForReal:
    """Changes the order in the database."""

    database: Database

    async def change(
        self, order_id: UUID, wanted: str | None, decide: Decide, key: RequestKey | None = None
    ) -> Document | KeyInUse | None:
        """As `Apply` says."""
        return await self.database.run(lambda c: change_order(c, order_id, wanted, decide, key), Lane.CHANGES)


async def change_once(
    apply: Apply, order_id: UUID, wanted: str | None, decide: Decide, key: str | None = None, request: object = None
) -> Answer:
    """Change the order. With a key, the same request again is answered as the first was. Raises OrderError."""
    fingerprint = hashlib.sha256(json.dumps(request).encode()).digest()
    try:
        outcome = await apply.change(order_id, wanted, decide, RequestKey(key, fingerprint) if key else None)
    except KeyTaken:
        raise OrderError(Code.KEY_REUSED, "This Idempotency-Key was used with another request.") from None
    if outcome is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
    return replay(outcome, fingerprint) if isinstance(outcome, KeyInUse) else order_answer(200, outcome)
