"""The part of the application that the routes of placing need."""

from dataclasses import dataclass

from fastapi import Request

from orders.placing.checkout import Checkout
from orders.placing.dry_run import PlacingDryRun


@dataclass(frozen=True, slots=True)
class Placing:
    """Places orders, or previews placing."""

    checkout: Checkout
    dry_run: PlacingDryRun


def placing(request: Request) -> Placing:
    """The Placing of the application that the request came to."""
    service: Placing = request.app.state.placing
    return service
