"""Every setting, from the environment or a `.env` file; what is missing or wrong is said in a sentence."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from orders.principal import CustomerMay
from orders.settings import relays, tokens, webhooks
from orders.settings.address import base_url, database_address


class SettingsError(Exception):
    """A setting is missing or wrong. The message is for the person who starts the service."""


_EXPIRY = re.compile(r"\s*([^:,]+?)\s*:\s*([1-9][0-9]{0,5})\s*([smhd])\s*")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _expiries(text: str) -> str:
    for part in text.split(",") if text.strip() else ():
        if not _EXPIRY.fullmatch(part):
            raise ValueError("must be like Ordered:30m, or several with commas; s, m, h and d are the units")
    return text


_PRIVATE = (
    "DATABASE_URL",
    "DB_PASSWORD",
    "CATALOG_URL",
    "CART_URL",
    "ORDERS_JWT_ISSUER",
    "ORDERS_JWT_JWKS_URL",
    "ORDERS_RELAYS",
    "ORDERS_SECRET",
)
"""Settings that may carry a password: their values are never repeated."""


def _listed(text: str | None) -> list[str]:
    return [part.strip().lower() for part in (text or "").split(",") if part.strip()]


_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE)


def _hosts(text: str) -> str:
    if wrong := [host for host in _listed(text) if not _HOST.fullmatch(host)]:
        raise ValueError(f"{wrong[0]!r} is not a host's name; leave out scheme, port and path")
    return text


def _origins(text: str) -> str:
    if wrong := [origin for origin in _listed(text) if not _ORIGIN.fullmatch(origin)]:
        raise ValueError(f"{wrong[0]!r} is not an origin like https://admin.shop.example")
    return text


BaseUrl = Annotated[str, AfterValidator(base_url)]
DatabaseAddress = Annotated[str, AfterValidator(database_address)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Concurrency = Annotated[int, Field(ge=1, le=1000)]
Rate = Annotated[int, Field(ge=0, le=1_000_000)]
Port = Annotated[int, Field(ge=1, le=65535)]
Days = Annotated[float, Field(gt=0, le=36500, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Names, defaults and meanings of the settings. Fields are the variables' names in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: DatabaseAddress | None = Field(
        None, repr=False, description="PostgreSQL, as libpq takes it (a URL or `key=value` pairs)"
    )
    db_name: str | None = Field(None, description="instead of `DATABASE_URL`: the database's name")
    db_user: str | None = Field(None, description="instead of `DATABASE_URL`: the user")
    db_password: str | None = Field(None, repr=False, description="instead of `DATABASE_URL`: the password")
    db_host: str | None = Field(None, description="instead of `DATABASE_URL`: the host")
    db_port: Port | None = Field(None, description="instead of `DATABASE_URL`: the port")
    catalog_url: BaseUrl | None = Field(None, repr=False, description="the Product Catalog Service's base URL")
    cart_url: BaseUrl | None = Field(None, repr=False, description="the Shopping Cart Service's base URL")
    catalog_concurrency: Concurrency = Field(
        64, description="most calls to the catalog at once; how many it really can take is learnt"
    )
    cart_concurrency: Concurrency = Field(64, description="the same of the cart service")
    host: str = Field("127.0.0.1", description="where `orders serve` and `orders dev` listen")
    port: Port = Field(8000, description="the port they listen on")

    orders_request_deadline_s: Seconds = Field(10, description="how long a placing request may take")
    orders_write_horizon_s: Seconds = Field(5, description="how long an unacknowledged PUT may still land")
    orders_lease_s: Seconds = Field(15, description="how long a claim is its owner's; longer than the deadline")
    orders_neighbour_timeout_s: Seconds = Field(2, description="how long one call to a neighbour may take")
    orders_breaker_failures: Annotated[int, Field(ge=1, le=1000)] = Field(
        8, description="failed calls in a row after which a neighbour is given a rest"
    )
    orders_breaker_rest_s: Seconds = Field(3, description="how long that rest is")
    orders_batch_size: Annotated[int, Field(ge=1, le=5000)] = Field(128, description="most orders in one batch")
    orders_batches: Annotated[int, Field(ge=1, le=64)] = Field(
        8, description="most batches at once in one replica; a second begins only beside one that takes long"
    )
    orders_queue: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        5000,
        description="most orders that may wait in one replica; the next is answered 503, and so is one that comes "
        "while many are in line and have waited for long",
    )
    orders_db_threads: Annotated[int, Field(ge=1, le=64)] = Field(
        8,
        description="database threads, each with a connection of its own, dealt out in turn to four "
        "[lanes](docs/lists.md#who-waits-for-whom): placing, lists, orders by ID, changes; the feed and webhooks "
        "have two more each, relays and `/health` one",
    )
    orders_connections: Annotated[int, Field(ge=16, le=100_000)] | None = Field(
        None, description="most connections at once in one replica; idle and slow ones make room for newcomers"
    )
    orders_migrate_at_start: bool = Field(True, description="make or upgrade the tables at start-up")
    orders_recovery_interval_s: Seconds = Field(1, description="how often a replica looks for what a dead one left")
    orders_key_retention_h: Annotated[int, Field(ge=72, le=8760)] = Field(
        72, description="hours that an `Idempotency-Key` is kept"
    )
    orders_cart_repeat_s: Annotated[float, Field(ge=0, le=86400)] = Field(
        600, description="for so long after a cart was ordered, ordering it again answers with the same order"
    )
    orders_workflow: Path | None = Field(
        None, description="a TOML file with your own [table of statuses](docs/lifecycle.md)"
    )
    orders_require_if_match: bool = Field(
        False, description="whether changing an order needs `If-Match`; without it the answer is 428"
    )
    orders_expire: Annotated[str, AfterValidator(_expiries)] | None = Field(
        None,
        description="which orders are cancelled after how long in a status: `Ordered:30m`, or several with commas; "
        "`s`, `m`, `h`, `d`",
    )
    orders_hosts: Annotated[str, AfterValidator(_hosts)] | None = Field(
        None, description="names by which the service may be called, with commas; others are refused (421)"
    )
    orders_cors_origins: Annotated[str, AfterValidator(_origins)] | None = Field(
        None, description="origins of pages that may call it from a browser, with commas: `https://admin.shop.example`"
    )
    orders_access: Literal["local", "closed", "open"] = Field(
        "local",
        description="who may ask [without a credential](docs/access.md): programs on this machine, until there is a key"
        " (`local`), nobody (`closed`), or everybody (`open`)",
    )
    orders_concurrency: Annotated[int, Field(ge=1, le=100_000)] = Field(
        64, description="most requests of one key at once, in one replica; the next is answered 429"
    )
    orders_customer_concurrency: Annotated[int, Field(ge=1, le=100_000)] = Field(
        8, description="the same of one customer"
    )
    orders_rate: Rate = Field(
        0,
        description="requests per second of one key, in one replica; after a rest, those of 3 s at once. 0: any "
        "number. A key's own rate wins",
    )
    orders_customer_rate: Rate = Field(10, description="the same of one customer")
    orders_jwt_issuer: Annotated[str, AfterValidator(tokens.issuer)] | None = Field(
        None,
        description="who signs [customers' tokens](docs/access.md): the URL that they have in `iss`; without one, no "
        "token is valid",
    )
    orders_jwt_audience: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="what tokens for this service have in `aud`; needed beside the issuer"
    )
    orders_jwt_customer_claim: Annotated[str, Field(min_length=1)] = Field(
        "customer_id", description="the claim with the customer's ID; `shop.customer_id` is one inside another"
    )
    orders_jwt_staff_claim: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="the claim with [scopes](docs/access.md#scopes) that make a token staff's, like `permissions`; it "
        "has to be one that only the issuer's administrators can fill; without it no token is staff's",
    )
    orders_jwt_jwks_url: Annotated[str, AfterValidator(tokens.keys_url)] | None = Field(
        None,
        repr=False,
        description="where the issuer's keys are; without it, where `/.well-known/openid-configuration` below the "
        "issuer says",
    )
    orders_jwt_algorithms: Annotated[str, AfterValidator(tokens.algorithms)] = Field(
        "RS256,ES256,EdDSA", description="algorithms that may sign tokens, with commas; only asymmetric ones"
    )
    orders_customer_may: Annotated[str, AfterValidator(tokens.customer_may)] = Field(
        "read,place,cancel", description="what customers may do with their own orders, with commas; may be empty"
    )
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
        description="brokers that every event is [relayed](docs/relays.md) to, with commas: `nats://broker:4222/orders`",
    )
    orders_event_source: Annotated[str, AfterValidator(relays.source)] = Field(
        "/orders",
        description="what events name as their source at brokers: the URL of your service, as in "
        "`https://orders.shop.example`; then they name their schemas, too",
    )
    orders_outbox: bool = Field(
        False, description="whether events pass through the table `outbox`, for [Debezium](docs/relays.md#debezium)"
    )
    orders_events_keep_d: Days | None = Field(
        None,
        description="days that events stay in [the feed](docs/events.md#what-the-feed-keeps), and longer if a webhook "
        "or a relay has not passed them; orders' histories keep them for good",
    )
    orders_access_log: bool = Field(False, description="a line in the log for every request, not only for refused ones")
    orders_data_dir: Path = Field(Path(".data"), description="the embedded PostgreSQL and the sandbox keep data here")

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if self.orders_lease_s <= self.orders_request_deadline_s:
            raise ValueError("ORDERS_LEASE_S must be longer than ORDERS_REQUEST_DEADLINE_S")
        if self.orders_write_horizon_s <= self.orders_neighbour_timeout_s:
            raise ValueError(
                "ORDERS_WRITE_HORIZON_S must be longer than ORDERS_NEIGHBOUR_TIMEOUT_S: a PUT that we still wait for "
                "can still land"
            )
        return self

    @model_validator(mode="after")
    def _database_is_named_once(self) -> Self:
        parts = (self.db_name, self.db_user, self.db_password, self.db_host, self.db_port)
        if self.database_url and any(part is not None for part in parts):
            raise ValueError("set either DATABASE_URL or the DB_… settings, not both")
        if any(part is not None for part in parts) and not self.db_name:
            raise ValueError("DB_NAME is missing beside the other DB_… settings")
        return self

    @model_validator(mode="after")
    def _issuer_and_audience_are_together(self) -> Self:
        if self.orders_jwt_issuer and not self.orders_jwt_audience:
            raise ValueError(
                "ORDERS_JWT_AUDIENCE is missing beside ORDERS_JWT_ISSUER: without it, tokens that the issuer made for "
                "other services would be valid here"
            )
        if not self.orders_jwt_issuer and (self.orders_jwt_audience or self.orders_jwt_jwks_url):
            raise ValueError("ORDERS_JWT_ISSUER is missing beside the other ORDERS_JWT_… settings")
        return self

    @property
    def expiries(self) -> list[tuple[str, timedelta]]:
        """How long an order may stay in which status, as the setting writes it."""
        found = (_EXPIRY.fullmatch(part) for part in (self.orders_expire or "").split(","))
        return [(match[1], timedelta(**{_UNITS[match[3]]: int(match[2])})) for match in found if match]

    @property
    def hosts(self) -> frozenset[str]:
        """The names by which the service may be called; none: any."""
        return frozenset(_listed(self.orders_hosts))

    @property
    def origins(self) -> frozenset[str]:
        """The origins of pages that may call the service from a browser."""
        return frozenset(_listed(self.orders_cors_origins))

    @property
    def token_algorithms(self) -> frozenset[str]:
        """The algorithms that may sign tokens."""
        return frozenset(tokens.listed(self.orders_jwt_algorithms))

    @property
    def customer_may(self) -> frozenset[CustomerMay]:
        """What customers may do with their own orders."""
        return frozenset(map(CustomerMay, tokens.listed(self.orders_customer_may)))

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

    @property
    def has_database(self) -> bool:
        """Whether a database is named; without one the embedded PostgreSQL serves."""
        return bool(self.database_url or self.db_name)


def load_settings(**overrides: object) -> Settings:
    """The settings. Raises SettingsError with a line per thing that is wrong; `overrides` win over the environment."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # the field's own validation checks them
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(dict(e)) for e in error.errors())) from None
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise SettingsError(f".env can't be read: {why}") from None


def _sentence(error: dict[str, object]) -> str:
    loc = error["loc"]
    name = str(loc[0]).upper() if isinstance(loc, tuple) and loc else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    if not name:
        return message
    seen = "" if name in _PRIVATE else f" (it is {error['input']!r})"
    return f"{name}: {message[0].lower()}{message[1:]}{seen}"
