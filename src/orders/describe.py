"""What others attach to an order (metadata, an external reference, notes), and changing that by a JSON merge patch."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from orders.database import Database
from orders.errors import Code, OrderError, invalid, reference_taken
from orders.order import Details
from orders.store.details import ReferenceTaken, read_details, write_details

MAX_METADATA_BYTES = 8192
MAX_METADATA_MEMBERS = 50
MAX_METADATA_DEPTH = 5
MAX_KEY_LENGTH = 100
MAX_VALUE_LENGTH = 500
"""Of a string that orders can be found by: a member of the metadata itself."""


async def patch_details(database: Database, order_id: UUID, patch: Mapping[str, Any]) -> str:
    """Merge `patch` (RFC 7396) into what is attached to the order, and return its JSON; no change changes nothing.

    Two at the same moment: the second is merged into what the first has made of it. Raises OrderError.
    """
    while True:
        known = await database.run(lambda c: read_details(c, order_id))
        if known is None:
            raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
        before, version, body = known
        after = to_details(merge_patch(to_document(before), patch))
        if after == before:
            return body
        try:
            written = await database.run(
                lambda c, v=version, a=after: write_details(c, order_id, v, a)  # type: ignore[misc]  # as in change_status
            )
        except ReferenceTaken as taken:
            raise reference_taken(after.external_reference, taken.order_id) from None
        if written is not None:
            return written


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
    """From the wire. Raises OrderError where the metadata are too large."""
    metadata, notes = document.get("metadata") or {}, document.get("notes") or {}
    try:
        check_metadata(metadata)
    except ValueError as error:
        raise invalid("#/metadata", "metadata_invalid", f"The metadata {error}.") from None
    return Details(
        external_reference=document.get("external_reference"),
        metadata=_dumped(metadata) if metadata else None,
        public_note=notes.get("public"),
        private_note=notes.get("private"),
    )


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raises ValueError: small, flat enough, and nothing in it that a database can't keep."""
    _check(metadata, MAX_METADATA_DEPTH)
    if len(metadata) > MAX_METADATA_MEMBERS:
        raise ValueError(f"must have at most {MAX_METADATA_MEMBERS} members")
    if any(isinstance(value, str) and len(value) > MAX_VALUE_LENGTH for value in metadata.values()):
        raise ValueError(f"must have strings of at most {MAX_VALUE_LENGTH} characters")
    try:
        size = len(_dumped(metadata).encode())
    except UnicodeEncodeError:
        raise ValueError("must be of whole characters: half of a surrogate pair is none") from None
    except ValueError:
        raise ValueError("must have no number that is infinite or none") from None
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"must be at most {MAX_METADATA_BYTES} bytes of JSON")


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


def _dumped(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
