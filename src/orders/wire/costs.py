"""What requests cost in the limits of their principals, beyond what the gate knows (`Operation.cost`).

The unit is a request, about 3 ms of CPU of the service and PostgreSQL together: placing an order of one line takes 1 to
9 ms (with others, or alone), reading one 0.5 ms. The other weights were measured in the same way, and are rounded.
"""

from typing import Protocol

from fastapi import Request

LINES = 10
"""Number of lines to place that cost as much as a request: a line takes 0.3 to 0.5 ms, mostly for its product."""

ENTRIES = 5
"""Number of orders, in one request for many, that cost as much as a request: one takes 0.3 ms to move,
0.5 ms to place.
"""

ROWS = 50
"""Number of orders or events in an answer that cost as much as a request: one takes 0.03 to 0.06 ms."""

COUNT = 10
"""Cost of counting a list (`include_total`), in requests: it may take a database thread for a second."""


class Limits(Protocol):
    """The limits of the request's principal."""

    def take(self, cost: float) -> None:
        """As `take` below."""
        ...

    def charge(self, cost: float) -> None:
        """As `charge` below."""
        ...


def take(request: Request, cost: float) -> None:
    """Take what the request costs, as its body says, before it is done. Raises OrderError (429) if the principal has
    too much under way. Nothing happens if it has no limits.
    """
    limits: Limits | None = request.scope["state"].get("limits")
    if limits:
        limits.take(cost)


def charge(request: Request, cost: float) -> None:
    """Charge the principal for what is already done. Nothing happens if it has no limits."""
    limits: Limits | None = request.scope["state"].get("limits")
    if limits:
        limits.charge(cost)
