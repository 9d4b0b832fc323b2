"""Metadata, external reference and notes of an order: their limits, and a JSON merge patch. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from orders.errors import invalid
from orders.order.model import ATTACHED, Details, Field
from orders.order.sizes import MAX_ATTACHED_BYTES, stored_bytes

MAX_METADATA_BYTES = 8192
"""Maximum size of the metadata, as stored and sent."""


MAX_METADATA_MEMBERS = 50


MAX_METADATA_DEPTH = 5


MAX_KEY_LENGTH = 100


MAX_VALUE_LENGTH = 500
"""Maximum length of a string that is a member of the metadata itself. Orders can be found by such strings."""


def merge_patch(target: Any, patch: Any) -> Any:
    """The merged document (RFC 7396): members of `patch` replace those of `target`, null removes one, objects are
    merged.
    """
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
    """The details as a JSON object of the wire, without members that are not set."""
    document: dict[str, Any] = {}
    for field in ATTACHED:
        value = _as_member(field, details)
        if value not in (None, {}):
            _put(document, field.path, value)
    return document


def to_details(document: Mapping[str, Any]) -> Details:
    """Details from a JSON object that was checked on the wire. Raises OrderError if the metadata can't be kept."""
    require_good_metadata(document.get("metadata") or {})
    return as_details(document)


def require_good_metadata(metadata: Mapping[str, Any]) -> None:
    try:
        check_metadata(metadata)
    except ValueError as error:
        raise invalid("#/metadata", "metadata_invalid", f"The metadata {error}.") from None


TOO_LARGE = f"must be at most {MAX_ATTACHED_BYTES} bytes altogether: the metadata and the notes"


def attached_bytes(document: Mapping[str, Any]) -> int:
    """The size of an order's metadata and notes, as stored and sent."""
    texts = (document.get("notes") or {}).values()
    return stored_bytes(document.get("metadata") or {}) + sum(stored_bytes(text) for text in texts if text)


def as_details(document: Mapping[str, Any]) -> Details:
    return Details(**{field.name: _as_attribute(field, document) for field in ATTACHED})


def as_members(details: Details) -> dict[str, Any]:
    """The details as members of an order. A member that is not set is null or empty."""
    members: dict[str, Any] = {}
    for field in ATTACHED:
        _put(members, field.path, _as_member(field, details))
    return members


def _as_member(field: Field, details: Details) -> Any:
    text = getattr(details, field.name)
    return json.loads(text or "{}") if field.type == "jsonb" else text


def _as_attribute(field: Field, document: Mapping[str, Any]) -> str | None:
    value: Any = document
    for name in field.path:
        value = (value or {}).get(name)
    if field.type == "jsonb":
        return dumped(value) if value else None
    return None if value is None else str(value)


def _put(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *parents, name = path
    for parent in parents:
        document = document.setdefault(parent, {})
    document[name] = value


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Check that the metadata is small, flat enough, and storable. Raises ValueError."""
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


def dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
