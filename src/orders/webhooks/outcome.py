"""What becomes of deliveries and of their endpoint after some attempts. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orders.webhooks.model import DeliveryState, DisabledReason, Result
from orders.webhooks.schedule import Health, pause_s, probe_pause_s


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What becomes of a delivery. `due_at` is the next attempt, if it is waiting."""

    result: Result
    state: DeliveryState
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EndpointOutcome:
    """What becomes of an endpoint: its health, when it may be asked again (None: at once), and why it is disabled."""

    health: Health
    succeeded_at: datetime | None
    slow_until: datetime | None
    disabled: DisabledReason | None = None


def of_delivery(result: Result, retries: Sequence[float], now: datetime) -> DeliveryOutcome:
    """What becomes of the delivery after this attempt. `retries` are the pauses before each attempt, in seconds."""
    if result.is_success:
        return DeliveryOutcome(result, DeliveryState.DELIVERED)
    pause = pause_s(retries, result.message.attempt)
    if pause is None:
        return DeliveryOutcome(result, DeliveryState.FAILED)
    if result.asks_for_a_pause:
        pause = max(pause, result.retry_after_s or 0.0)
    return DeliveryOutcome(result, DeliveryState.WAITING, now + timedelta(seconds=pause))


def of_endpoint(before: Health, results: Sequence[Result], now: datetime) -> EndpointOutcome:
    """What becomes of the endpoint after these attempts, in the order in which they ended.

    One success ends a series of failures. An endpoint that fails is asked rarely; one that asks for a pause gets it.
    """
    health, succeeded_at = before, None
    for result in results:
        if result.is_success:
            health, succeeded_at = Health(), result.at
        else:
            health = health.after_failure(result.at)
    pauses = [probe_pause_s(health, now)]
    pauses += [result.retry_after_s or 0.0 for result in results if result.asks_for_a_pause]
    slow_until = now + timedelta(seconds=max(pauses)) if max(pauses) > 0 else None
    return EndpointOutcome(health, succeeded_at, slow_until, _disabled(health, results, now))


def _disabled(health: Health, results: Sequence[Result], now: datetime) -> DisabledReason | None:
    if any(result.is_gone for result in results):
        return DisabledReason.GONE
    return DisabledReason.FAILING if health.must_be_disabled(now) else None
