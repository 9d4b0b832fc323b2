"""One line in the log for each request that was refused or failed, or for every request if that is set.

A line has the request's ID, so an ID that a client was told finds it. Nothing that a client sends can break or forge a
line.
"""

import logging

from starlette.types import Scope

from orders.errors import OrderError

log = logging.getLogger("orders.requests")

MAX_TEXT = 300
"""Maximum length of a path, and of a detail, in a line."""


class RequestLog:
    """Writes the lines. `wants_all`: also for requests that went well, and for addresses that don't exist (404)."""

    def __init__(self, *, wants_all: bool) -> None:
        self._wants_all = wants_all

    def note(self, method: str, scope: Scope, status: int, seconds: float) -> None:
        """Note that a request was answered. Status 0: its client has gone."""
        is_worth_a_line = status >= 400 and status != 404
        if not (is_worth_a_line or self._wants_all):
            return
        state = scope.get("state", {})
        problem: OrderError | None = state.get("problem")
        said = f" {problem.code.name.lower()}: {printable(problem.detail)}" if problem else ""
        level = logging.WARNING if status >= 500 else logging.INFO
        path, request_id = printable(scope["path"]), state.get("request_id", "-")
        log.log(level, "%s %s [%s] %s %.0f ms%s", printable(method), path, request_id, status, seconds * 1000, said)

    def note_bug(self, method: str, scope: Scope, bug: Exception) -> None:
        """Log a defect of this service, with its stack trace."""
        request_id = scope.get("state", {}).get("request_id", "-")
        log.error("%s %s [%s] failed", printable(method), printable(scope["path"]), request_id, exc_info=bug)


def printable(text: str) -> str:
    """The text on one line, in ASCII, and not too long."""
    short = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
    return short.encode("unicode_escape").decode() if not (short.isascii() and short.isprintable()) else short
