"""What others attach to an order (metadata, an external reference, notes), and changing that by a JSON merge patch."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from orders.changing.change_sql import Change, OrderState, ReferenceTaken, change_order
from orders.changing.move import Asked, Rehearse, require_version
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
from orders.order.sizes import MAX_ATTACHED_BYTES
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.stock.claim_sql import other_order_of_customer

MAX_DESCRIPTIONS = 1000
"""Maximum changes of what is attached to one order: each keeps what was there before, which may be MAX_ATTACHED_BYTES.
"""


EVENT_TEXT_LENGTH = 200
"""Of a note, this is in its event as what it became. The whole note is in the order, or in the `before` of the next."""


async def patch_details(
    database: Database, order_id: UUID, patch: Mapping[str, Any], asked: Asked, rehearse: Rehearse | None = None
) -> str:
    """Merge `patch` (RFC 7396) into what is attached to the order, and return its JSON; no change changes nothing.

    Two at the same moment: the second is merged into what the first has made of it. Raises OrderError.
    """

    def decide(standing: OrderState) -> Change | None:
        return describe(standing, patch, asked)

    try:
        if rehearse:
            body = await rehearse(order_id, None, decide, None)
        else:
            body = await database.run(lambda c: change_order(c, order_id, None, decide), Lane.CHANGES)
    except ReferenceTaken:
        reference = patch["external_reference"]
        other = await database.run(lambda c: other_order_of_customer(c, order_id, reference), Lane.CHANGES)
        raise reference_taken(reference, other) from None
    if not isinstance(body, str):  # there is no key, so it is None
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
    return body


def describe(standing: OrderState, patch: Mapping[str, Any], asked: Asked) -> Change | None:
    """What is attached to the order after `patch`. Its event names those members of the order that change.

    Raises OrderError.
    """
    require_version(standing, asked)
    known = to_document(standing.attached)
    wanted = merge_patch(known, patch)
    before, after = as_details(known), as_details(wanted)
    if before == after:
        return None
    if standing.description_count >= MAX_DESCRIPTIONS:
        raise OrderError(Code.DESCRIBED_TOO_OFTEN, f"The order's details were changed {MAX_DESCRIPTIONS} times.")
    _require_small(known, wanted)
    was, becomes = as_members(before), as_members(after)
    changed = [name for name in was if dumped(was[name]) != dumped(becomes[name])]
    shown, cut = _shortened({name: becomes[name] for name in changed})
    return Change(
        standing,
        "described",
        asked.author,
        standing.status,
        standing.held_from,
        standing.total,
        before={name: was[name] for name in changed},
        after=shown,
        details={"cut": cut} if cut else None,
        attached=after,
    )


def _require_small(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises OrderError where it becomes too large. What is too large from earlier on may become smaller, or stay."""
    metadata = wanted.get("metadata") or {}
    if dumped(metadata) != dumped(known.get("metadata") or {}):
        require_good_metadata(metadata)
    if attached_bytes(wanted) > max(MAX_ATTACHED_BYTES, attached_bytes(known)):
        raise invalid("#", "too_large", f"What is attached {TOO_LARGE}.")


def _shortened(members: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The members with long notes cut, and which those are: where they stand, and how long they really are."""
    notes: dict[str, str | None] = members.get("notes") or {}
    long = {name: note for name, note in notes.items() if note and len(note) > EVENT_TEXT_LENGTH}
    cut = [{"pointer": f"/after/notes/{name}", "characters": len(note)} for name, note in long.items()]
    short = {name: f"{note[:EVENT_TEXT_LENGTH]}…" for name, note in long.items()}
    return ({**members, "notes": {**notes, **short}} if long else dict(members)), cut
