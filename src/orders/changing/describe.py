"""Changes an order's details (metadata, an external reference, notes) by a JSON merge patch."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from orders.changing.apply import Apply, change_once
from orders.changing.change import Change, OrderState
from orders.changing.change_sql import ReferenceTaken
from orders.changing.rules import Asked, require_version
from orders.errors import Code, OrderError, invalid, reference_taken
from orders.order.details import (
    TOO_LARGE,
    as_details,
    as_members,
    attached_bytes,
    dumped,
    merge_patch,
    require_good_metadata,
    to_document,
)
from orders.order.events import EventType
from orders.order.idempotency import Answer
from orders.order.sizes import MAX_ATTACHED_BYTES
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.principal import Seer
from orders.stock.claim_sql import other_order_of_customer

MAX_DESCRIPTIONS = 1000
"""Maximum number of changes of one order's details: each event keeps the details before it, up to
MAX_ATTACHED_BYTES.
"""


EVENT_TEXT_LENGTH = 200
"""Maximum length of a new note in its event. The whole note is in the order, or in the `before` of the next event."""


async def patch_details(
    apply: Apply, database: Database, seer: Seer, order_id: UUID, patch: Mapping[str, Any], asked: Asked
) -> Answer:
    """Merge `patch` (RFC 7396) into the order's details. Without a difference nothing is written. If another order has
    the reference, the error names it if the seer sees it.

    Of two calls at the same moment, the second is merged into the result of the first. Raises OrderError.
    """

    def decide(state: OrderState) -> Change | None:
        return describe(state, patch, asked)

    try:
        return await change_once(apply, order_id, None, decide)
    except ReferenceTaken:
        reference = patch["external_reference"]
        other = await database.run(lambda c: other_order_of_customer(c, seer, order_id, reference), Lane.CHANGES)
        raise reference_taken(reference, other) from None


def describe(state: OrderState, patch: Mapping[str, Any], asked: Asked) -> Change | None:
    """The change by `patch`, or None without a difference. Its event names the members of the order that change.

    Raises OrderError.
    """
    require_version(state, asked)
    known = to_document(state.attached)
    wanted = merge_patch(known, patch)
    before, after = as_details(known), as_details(wanted)
    if before == after:
        return None
    if state.description_count >= MAX_DESCRIPTIONS:
        raise OrderError(Code.DESCRIBED_TOO_OFTEN, f"The order's details were changed {MAX_DESCRIPTIONS} times.")
    _require_small(known, wanted)
    was, becomes = as_members(before), as_members(after)
    changed = [name for name in was if dumped(was[name]) != dumped(becomes[name])]
    shown, cut = _shortened({name: becomes[name] for name in changed})
    event = asked.event(
        EventType.DESCRIBED, {name: was[name] for name in changed}, shown, {"cut": cut} if cut else None
    )
    return Change.of_attached(state, event, after)


def _require_small(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise OrderError if the details become too large. Details that are too large already may shrink, or keep their
    size.
    """
    metadata = wanted.get("metadata") or {}
    if dumped(metadata) != dumped(known.get("metadata") or {}):
        require_good_metadata(metadata)
    if attached_bytes(wanted) > max(MAX_ATTACHED_BYTES, attached_bytes(known)):
        raise invalid("#", "too_large", f"What is attached {TOO_LARGE}.")


def _shortened(members: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The members with long notes cut, and the list of the cuts: where they are, and the whole notes' lengths."""
    notes: dict[str, str | None] = members.get("notes") or {}
    long = {name: note for name, note in notes.items() if note and len(note) > EVENT_TEXT_LENGTH}
    cut = [{"pointer": f"/after/notes/{name}", "characters": len(note)} for name, note in long.items()]
    short = {name: f"{note[:EVENT_TEXT_LENGTH]}…" for name, note in long.items()}
    return ({**members, "notes": {**notes, **short}} if long else dict(members)), cut
