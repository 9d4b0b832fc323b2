"""An order as the wire has it."""

from typing import NamedTuple


class Document(NamedTuple):
    """An order as PostgreSQL built it, with its version beside it, so that nobody takes the JSON apart again.

    `is_short`: there was no room for all of it, and the JSON has its ID, status and version only.
    """

    version: int
    json: str
    is_short: bool = False
