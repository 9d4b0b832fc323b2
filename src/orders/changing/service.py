"""The part of the application that the routes of changing need."""

from dataclasses import dataclass

from fastapi import Request

from orders.changing.apply import Apply, ForReal
from orders.changing.dry_run import ChangingDryRun
from orders.order.statuses import Workflow
from orders.postgres.database import Database


@dataclass(frozen=True, slots=True)
class Changing:
    """Changes orders, or previews changes. `needs_if_match`: a change has to name a version."""

    database: Database
    workflow: Workflow
    needs_if_match: bool
    dry_run: ChangingDryRun

    def apply(self, dry_run: bool) -> Apply:
        """What does what is decided about an order, or only shows it."""
        return self.dry_run if dry_run else ForReal(self.database)


def changing(request: Request) -> Changing:
    """The Changing of the application that the request came to."""
    service: Changing = request.app.state.changing
    return service
