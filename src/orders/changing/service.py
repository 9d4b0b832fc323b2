"""The part of the application that the routes of changing need."""

from dataclasses import dataclass

from fastapi import Request

from orders.changing.apply import Apply, ForReal
from orders.changing.dry_run import ChangingDryRun, Rehearsed
from orders.order.statuses import Workflow
from orders.postgres.database import Database
from orders.principal import Seer


@dataclass(frozen=True, slots=True)
class Changing:
    """Changes orders, or previews changes. `needs_if_match`: a change has to name a version."""

    database: Database
    workflow: Workflow
    needs_if_match: bool
    dry_run: ChangingDryRun

    def apply(self, seer: Seer, dry_run: bool) -> Apply:
        """What does what is decided about an order that the seer sees, or only shows it."""
        return Rehearsed(self.dry_run, seer) if dry_run else ForReal(self.database, seer)


def changing(request: Request) -> Changing:
    """The Changing of the application that the request came to."""
    service: Changing = request.app.state.changing
    return service
