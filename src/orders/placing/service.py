"""What the routes of placing need."""

from dataclasses import dataclass

from fastapi import Request

from orders.placing.checkout import Checkout
from orders.placing.dry_run import PlacingDryRun


@dataclass(frozen=True, slots=True)
class Placing:
    """Places orders, or says what placing would do."""

    checkout: Checkout
    dry_run: PlacingDryRun


def placing(request: Request) -> Placing:
    """What places orders, of the app that the request came to."""
    service: Placing = request.app.state.placing
    return service
