"""What others attach to an order (metadata, an external reference, notes), and changing that by a JSON merge patch."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from orders.changing.change_sql import Change, ReferenceTaken, Standing, change_order
from orders.changing.move import Asked, Rehearse, require_version
from orders.errors import Code, OrderError, invalid, reference_taken
from orders.order.model import Details
from orders.order.sizes import MAX_ATTACHED_BYTES, stored_bytes
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.stock.claim_sql import other_order_of_customer

MAX_METADATA_BYTES = 8192
"""Maximum size of the metadata as they are stored and sent."""
MAX_METADATA_MEMBERS = 50
MAX_METADATA_DEPTH = 5
MAX_KEY_LENGTH = 100
MAX_VALUE_LENGTH = 500
"""Of a string that orders can be found by: a member of the metadata itself."""

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

    def decide(standing: Standing) -> Change | None:
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


def describe(standing: Standing, patch: Mapping[str, Any], asked: Asked) -> Change | None:
    """What is attached to the order after `patch`. Its event names those members of the order that change.

    Raises OrderError.
    """
    require_version(standing, asked)
    known = to_document(standing.attached)
    wanted = merge_patch(known, patch)
    before, after = _details(known), _details(wanted)
    if before == after:
        return None
    if standing.description_count >= MAX_DESCRIPTIONS:
        raise OrderError(Code.DESCRIBED_TOO_OFTEN, f"The order's details were changed {MAX_DESCRIPTIONS} times.")
    _require_small(known, wanted)
    was, becomes = _members(before), _members(after)
    changed = [name for name in was if _dumped(was[name]) != _dumped(becomes[name])]
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
    if _dumped(metadata) != _dumped(known.get("metadata") or {}):
        _require_good_metadata(metadata)
    if attached_bytes(wanted) > max(MAX_ATTACHED_BYTES, attached_bytes(known)):
        raise invalid("#", "too_large", f"What is attached {TOO_LARGE}.")


def _shortened(members: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The members with long notes cut, and which those are: where they stand, and how long they really are."""
    notes: dict[str, str | None] = members.get("notes") or {}
    long = {name: note for name, note in notes.items() if note and len(note) > EVENT_TEXT_LENGTH}
    cut = [{"pointer": f"/after/notes/{name}", "characters": len(note)} for name, note in long.items()]
    short = {name: f"{note[:EVENT_TEXT_LENGTH]}…" for name, note in long.items()}
    return ({**members, "notes": {**notes, **short}} if long else dict(members)), cut


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: members of `patch` replace those of `target`, null removes one, objects are merged."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def to_document(details: Details) -> dict[str, Any]:
    """As the wire has it, without what is not there."""
    notes = {"public": details.public_note, "private": details.private_note}
    document = {
        "external_reference": details.external_reference,
        "metadata": json.loads(details.metadata) if details.metadata else None,
        "notes": {name: note for name, note in notes.items() if note is not None},
    }
    return {name: value for name, value in document.items() if value is not None}


def to_details(document: Mapping[str, Any]) -> Details:
    """From the wire, where it was checked. Raises OrderError where the metadata can't be kept."""
    _require_good_metadata(document.get("metadata") or {})
    return _details(document)


def _require_good_metadata(metadata: Mapping[str, Any]) -> None:
    try:
        check_metadata(metadata)
    except ValueError as error:
        raise invalid("#/metadata", "metadata_invalid", f"The metadata {error}.") from None


TOO_LARGE = f"must be at most {MAX_ATTACHED_BYTES} bytes altogether: the metadata and the notes"


def attached_bytes(document: Mapping[str, Any]) -> int:
    """The size of an order's metadata and notes, as they are stored and sent."""
    texts = (document.get("notes") or {}).values()
    return stored_bytes(document.get("metadata") or {}) + sum(stored_bytes(text) for text in texts if text)


def _details(document: Mapping[str, Any]) -> Details:
    metadata, notes = document.get("metadata"), document.get("notes") or {}
    return Details(
        external_reference=document.get("external_reference"),
        metadata=_dumped(metadata) if metadata else None,
        public_note=notes.get("public"),
        private_note=notes.get("private"),
    )


def _members(details: Details) -> dict[str, Any]:
    """As members of the order: what is not there is null, or empty."""
    return {
        "external_reference": details.external_reference,
        "metadata": json.loads(details.metadata) if details.metadata else {},
        "notes": {"public": details.public_note, "private": details.private_note},
    }


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raises ValueError: small, flat enough, and nothing in it that a database can't keep."""
    _check(metadata, MAX_METADATA_DEPTH)
    if len(metadata) > MAX_METADATA_MEMBERS:
        raise ValueError(f"must have at most {MAX_METADATA_MEMBERS} members")
    if any(isinstance(value, str) and len(value) > MAX_VALUE_LENGTH for value in metadata.values()):
        raise ValueError(f"must have strings of at most {MAX_VALUE_LENGTH} characters")
    size = stored_bytes(metadata)
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"must be at most {MAX_METADATA_BYTES} bytes of JSON, numbers written out; these are {size}")


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("must not hold the character U+0000")
    if isinstance(value, Mapping | list) and depth == 0:
        raise ValueError(f"must be nested at most {MAX_METADATA_DEPTH} deep")
    if isinstance(value, Mapping):
        if not all(1 <= len(key) <= MAX_KEY_LENGTH for key in value):
            raise ValueError(f"must have keys of 1 to {MAX_KEY_LENGTH} characters")
        for part in (*value, *value.values()):
            _check(part, depth - 1)
    elif isinstance(value, list):
        for part in value:
            _check(part, depth - 1)


def _dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
