"""An order as the wire has it."""

from typing import NamedTuple


class Document(NamedTuple):
    """An order's JSON as PostgreSQL built it, and its version beside it, so that nobody searches for it in the JSON.

    `is_short`: the JSON has the ID, status and version only, because there was no room for more.
    """

    version: int
    json: str
    is_short: bool = False
