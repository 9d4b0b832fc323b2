"""The settings of what goes out to others: the feed, webhooks, relays and the outbox."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings

from orders.settings import relays, tokens, webhooks


class OutwardSettings(BaseSettings):
    """These settings, as a part of all settings."""

    orders_events_interval_s: Annotated[float, Field(ge=0.02, le=60, allow_inf_nan=False)] = Field(
        0.2,
        description="how often a replica looks for events that have no position in [the feed](docs/events.md) yet; "
        "after a change of its own it looks at once",
    )
    orders_streams: Annotated[int, Field(ge=1, le=100_000)] = Field(
        200,
        description="most requests that wait for events at once in one replica, and at most half of its connections; "
        "the next is answered 503",
    )
    orders_secret: Annotated[str, Field(min_length=16)] | None = Field(
        None,
        repr=False,
        description="what the secrets of [webhooks](docs/webhooks.md) are encrypted with in the database, at least 16 "
        "characters; the same in all replicas. `orders dev` makes one; without one, nothing is sent to webhooks",
    )
    orders_webhooks: Annotated[int, Field(ge=0, le=1000)] = Field(
        50, description="most [webhooks](docs/webhooks.md) that there can be"
    )
    orders_webhook_retries: Annotated[str, AfterValidator(webhooks.retries)] = Field(
        webhooks.RETRIES, description="pauses before each attempt of a delivery, each made up to 20 % longer or shorter"
    )
    orders_webhook_timeout_s: Annotated[float, Field(gt=0, le=30, allow_inf_nan=False)] = Field(
        15, description="how long an attempt may take, from the look-up of the name to the end of the reply"
    )
    orders_webhook_allow: Annotated[str, AfterValidator(webhooks.allowed)] = Field(
        "",
        description="private targets that webhooks may be sent to, and without https, with commas: networks "
        "(`10.1.0.0/16`) and hosts' names. `orders dev` allows this machine",
    )
    orders_webhook_keep_d: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = Field(
        30, description="days that ended deliveries to webhooks are kept"
    )
    orders_relays: Annotated[str, AfterValidator(relays.relays)] = Field(
        "",
        repr=False,
        description="brokers that every event is [relayed](docs/relays.md) to, with commas: "
        "`nats://broker.internal:4222/orders`",
    )
    orders_event_source: Annotated[str, AfterValidator(relays.source)] = Field(
        "/orders",
        description="what events name as their source at brokers: the URL of your service, as in "
        "`https://orders.shop.example`; then they name their schemas, too",
    )
    orders_outbox: bool = Field(
        False, description="whether events pass through the table `outbox`, for [Debezium](docs/relays.md#debezium)"
    )
    orders_events_keep_d: Annotated[float, Field(gt=0, le=36500, allow_inf_nan=False)] | None = Field(
        None,
        description="days that events stay in [the feed](docs/events.md#what-the-feed-keeps), and longer if a webhook "
        "or a relay has not passed them; orders' histories keep them for good",
    )

    @property
    def webhook_pauses_s(self) -> tuple[float, ...]:
        """The pauses before each attempt of a delivery, in seconds."""
        return webhooks.pauses_s(self.orders_webhook_retries)

    @property
    def webhook_targets(self) -> tuple[str, ...]:
        """The private targets that webhooks may be sent to: networks, and names of hosts."""
        return tokens.listed(self.orders_webhook_allow)

    @property
    def relay_targets(self) -> tuple[relays.Target, ...]:
        """The brokers that events are relayed to."""
        return relays.targets(self.orders_relays)
