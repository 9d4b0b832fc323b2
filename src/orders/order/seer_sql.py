"""Whose orders a statement may read, in SQL. A foreign order is left out as if it did not exist."""

from typing import Any

from orders.principal import Seer


def is_seen_by(seer: Seer) -> str:
    """SQL for the condition that the seer sees the order `o`. `seer_values` has its parameters.

    A bound is a plain equality, so that the indexes of customers and of channels serve it.
    """
    condition = "true"  # PostgreSQL leaves it out of its plan
    if seer.customer_id is not None:
        condition += " AND o.customer_id = %(seen_customer)s"
    if seer.channel is not None:
        condition += " AND o.channel = %(seen_channel)s"
    return condition


def seer_values(seer: Seer) -> dict[str, Any]:
    """The values of the parameters of `is_seen_by`, and `sees_private` for `order_json` and `event_json`."""
    return {"seen_customer": seer.customer_id, "seen_channel": seer.channel, "sees_private": seer.sees_private}
