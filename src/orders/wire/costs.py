"""What requests cost in the limits of their principals, beyond what the gate knows (`Operation.cost`).

The unit is an order of one line, or an order that is read by its ID. The weights are what the CPU of the service and of
PostgreSQL take, rounded so that they are easy to remember.
"""

from fastapi import Request

LINES = 10
"""Number of lines to place that cost as much as a request."""

MOVES = 5
"""Number of orders to move, in one request for many, that cost as much as a request."""

ROWS = 50
"""Number of orders, events or lines of a report in an answer that cost as much as a request."""

COUNT = 10
"""Cost of counting a list (`include_total`), in requests."""


def charge(request: Request, cost: float) -> None:
    """Charge the principal of this request. Nothing happens if it has no limits."""
    if charge := request.scope["state"].get("charge"):
        charge(cost)
