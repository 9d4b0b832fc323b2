"""Answers to clients, and what an Idempotency-Key remembers of them."""

import json
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from orders.errors import Code, OrderError, problem
from orders.order.document import Document
from orders.order.keys_sql import KeyInUse, Outcome

RECORDED = (201, 400, 500)
"""Statuses that a key remembers as the request's outcome. With any other status nothing has been decided."""


class Keyed(StrEnum):
    """The operations that take an Idempotency-Key."""

    PLACE = "place"
    CANCEL = "cancel"
    RETURN = "return"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class ClientKey:
    """An Idempotency-Key as a client sent it, and the owner of the principal that sent it."""

    owner: str
    text: str

    def stored(self, operation: Keyed) -> str:
        """The key as it is stored: sent by another owner or for another operation, the same text is another key.

        A key of `local` for placing is stored as it is, as it always was. A client can't send a key that looks like
        the others, because these have spaces.
        """
        if not self.owner and operation is Keyed.PLACE:
            return self.text
        return f"{self.owner or 'local'} {operation} {self.text}"

    @property
    def once_stored(self) -> str | None:
        """The key as earlier releases stored it for a change, or None if its owner is younger than they are."""
        return None if self.owner else self.text


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a client: HTTP status, JSON body, the order if one was placed, and whether the answer is a
    repetition. `version`: the version of the order in the body, or None if the body has no order.
    """

    status: int
    body: str
    order_id: UUID | None
    replayed: bool = False
    version: int | None = None


def order_answer(status: int, order: Document, order_id: UUID | None = None, *, replayed: bool = False) -> Answer:
    """An answer with an order in its body. `order_id` is given if the order was placed."""
    return Answer(status, order.json, order_id, replayed, order.version)


def replay(known: KeyInUse, fingerprint: bytes) -> Answer:
    """The first answer to this key's request. Raises OrderError if the key is another request's (422), or still in use
    (409).
    """
    if known.fingerprint != fingerprint:
        raise OrderError(Code.KEY_REUSED, "This Idempotency-Key was used with another request.")
    if known.outcome is None:
        raise OrderError(Code.KEY_IN_USE, "The first request with this Idempotency-Key is running.", retry_after_s=1)
    return Answer(
        known.outcome.status, known.outcome.body, known.outcome.order_id, replayed=True, version=known.outcome.version
    )


def failure(error: OrderError, instance: str) -> Outcome:
    """The outcome of a request that was answered with this error."""
    return Outcome(error.code.value.status, json.dumps(problem(error, instance)), None)


def is_recorded(error: OrderError) -> bool:
    """Whether an Idempotency-Key remembers this error."""
    return error.code.value.status in RECORDED
