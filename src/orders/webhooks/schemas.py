"""The wire's format of webhooks: what is sent to make and change them, and how they are shown."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypeAliasType

from orders.order.model import MAX_ID
from orders.order.named_types import WITHOUT_NUL, Channel
from orders.order.schema import WHOLE
from orders.webhooks.endpoint_views_sql import COUNTED, EndpointView
from orders.webhooks.signing import SignatureKind
from orders.webhooks.urls import MAX_URL_LENGTH
from orders.webhooks.wanted import FOR_ENDPOINTS, pattern_of

WEBHOOK_ID_EXAMPLE = "7b0f0c55-3f64-4c2e-9a52-6c0f8de1a0f4"

MAX_TYPES = 50
"""Maximum number of types that an endpoint can ask for."""

MAX_DESCRIPTION = 500
"""Maximum length of a description, in characters."""

MAX_OVERLAP_H = 168
"""Maximum number of hours that a replaced secret signs beside the new one: a week."""


class Signature(StrEnum):
    """How messages are signed, as the wire says it."""

    V1 = "v1"
    ED25519 = "ed25519"

    @property
    def kind(self) -> SignatureKind:
        """The kind, as it stands in signatures."""
        return SignatureKind.V1A if self is Signature.ED25519 else SignatureKind.V1


WebhookPayload = TypeAliasType("WebhookPayload", Literal["full", "thin"])
WebhookOrdering = TypeAliasType("WebhookOrdering", Literal["order", "none"])
WebhookSignature = TypeAliasType("WebhookSignature", Literal["v1", "ed25519"])
WebhookStatus = TypeAliasType("WebhookStatus", Literal["enabled", "disabled"])
DisabledReason = TypeAliasType("DisabledReason", Literal["asked", "failing", "gone"])
HealthState = TypeAliasType("HealthState", Literal["ok", "failing", "disabled"])
# Clients that are generated need a name for each list of values.

WebhookType = TypeAliasType(
    "WebhookType",
    Annotated[
        str,
        Field(
            description="A type of message, or a pattern of types: `order.*` are the events of placed orders, `*` also "
            "those of orders that failed and all notices, `webhook.*` the notices about other webhooks.",
            examples=["order.*"],
            json_schema_extra={"x-extensible-enum": list(FOR_ENDPOINTS)},
        ),
    ],
)
_Type = Annotated[
    str,
    WithJsonSchema({"type": "string", "pattern": pattern_of(FOR_ENDPOINTS)}),
]
_Types = Annotated[
    list[_Type],
    Field(
        min_length=1,
        max_length=MAX_TYPES,
        description="What it gets: types like `order.placed`, and `order.*` (the events of placed orders), `webhook.*` "
        "(notices about other webhooks), `*` (both, and the events of orders that failed).",
        examples=[["order.*"]],
    ),
]
_Url = Annotated[
    str,
    Field(max_length=MAX_URL_LENGTH, description="Where messages are sent. `https`, and an address of the internet."),
    WithJsonSchema(
        {"type": "string", "format": "uri", "maxLength": MAX_URL_LENGTH, "examples": ["https://shop.example/hook"]}
    ),
]
_PayloadToSet = Annotated[
    WebhookPayload,
    Field(
        description="`full`: messages have the order as of the event; `thin`: they say where it is.",
    ),
]
_OrderingToSet = Annotated[
    WebhookOrdering,
    Field(
        description="`order`: the events of one order come one after the other, in their order; `none`: as it happens.",
    ),
]
_Concurrency = Annotated[int, Field(ge=1, le=64, description="Most messages on their way at once."), WHOLE]
_Description = Annotated[str, Field(max_length=MAX_DESCRIPTION, pattern=WITHOUT_NUL, description="For people.")]
_From = Annotated[
    Literal["now"] | Annotated[int, Field(ge=0, le=MAX_ID), WHOLE],
    Field(description="`now`, or a position in the feed: it gets the events behind it."),
]


LEFT_OUT: Any = Field(default_factory=lambda: None)
"""Default of a member that stays as it is. It is none that could be sent, and the schema has none."""


class WebhookToMake(BaseModel):
    """An endpoint to make."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"url": "https://shop.example/hook", "types": ["order.*"]}]},
    )

    url: _Url
    types: _Types = ["order.*"]
    payload: _PayloadToSet = "full"
    ordering: _OrderingToSet = "order"
    concurrency: _Concurrency = 8
    channel: Annotated[
        Channel | None,
        Field(description="Only events of orders of this channel. A key of a channel makes webhooks of that only."),
    ] = None
    description: _Description | None = None
    signature: Annotated[
        WebhookSignature,
        Field(description="`v1`: a shared secret (HMAC-SHA256); `ed25519`: a key pair (`v1a`)."),
    ] = "v1"
    secret: Annotated[
        Annotated[str, Field(max_length=200)] | None,
        Field(description="`whsec_` and 24 to 64 bytes as base64. Without it, one is made."),
    ] = None
    start: Annotated[_From, Field(alias="from")] = "now"


class WebhookPatch(BaseModel):
    """What is to change. Members that are left out stay."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"status": "disabled"}, {"types": ["order.*"]}]}
    )

    url: _Url = LEFT_OUT
    types: _Types = LEFT_OUT
    payload: _PayloadToSet = LEFT_OUT
    ordering: _OrderingToSet = LEFT_OUT
    concurrency: _Concurrency = LEFT_OUT
    description: _Description | None = LEFT_OUT
    status: Annotated[
        WebhookStatus,
        Field(description="`disabled`: nothing is sent; `enabled`: it goes on where it stopped."),
    ] = LEFT_OUT
    start: Annotated[
        Literal["now"],
        Field(alias="from", description="Beside `status` `enabled`: what it has not got yet is left out."),
    ] = LEFT_OUT


class SecretRotation(BaseModel):
    """How long the old secret signs beside the new one."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"keep_old_for_h": 24}]})

    keep_old_for_h: Annotated[
        int, Field(ge=0, le=MAX_OVERLAP_H), WHOLE, Field(description="Hours; 0 ends the old secret at once.")
    ] = 24


class WebhookHealth(BaseModel):
    """How an endpoint does."""

    model_config = ConfigDict(from_attributes=True)

    state: Annotated[HealthState, Field(description="`failing`: its last attempt failed.")]
    failing_since: datetime | None
    waiting: Annotated[int, Field(description="Deliveries that have not ended.")]
    behind: Annotated[int, Field(description="Positions of the feed that it has not passed yet.")]
    lag_s: Annotated[float, Field(description="Age of the oldest event that waits for it, in seconds; 0: none.")]
    delivered_24h: Annotated[
        int, Field(description=f"Deliveries that arrived within 24 h, of the newest {COUNTED:,} ones.")
    ]
    failed_24h: Annotated[int, Field(description="The same of those that were given up.")]


_EXAMPLE: dict[str, Any] = {
    "id": WEBHOOK_ID_EXAMPLE,
    "url": "https://shop.example/hook",
    "description": None,
    "types": ["order.*"],
    "channel": None,
    "payload": "full",
    "schema_version": 1,
    "ordering": "order",
    "concurrency": 8,
    "signature": "v1",
    "public_key": None,
    "old_secret_signs_until": None,
    "status": "enabled",
    "disabled_reason": None,
    "position": 1302,
    "version": 1,
    "created_at": "2026-11-28T08:00:00.271828Z",
    "created_by": "key:shop",
    "health": {
        "state": "ok",
        "failing_since": None,
        "waiting": 0,
        "behind": 0,
        "lag_s": 0.0,
        "delivered_24h": 37,
        "failed_24h": 0,
    },
}


class Webhook(BaseModel):
    """An endpoint, without its secret, which nobody can read any more."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    id: UUID
    url: str
    description: str | None
    types: list[WebhookType]
    channel: Annotated[str | None, Field(description="Null: orders of all channels.")]
    payload: WebhookPayload
    schema_version: Annotated[int, Field(description="The version of the messages' format.")]
    ordering: WebhookOrdering
    concurrency: int
    signature: WebhookSignature
    public_key: Annotated[str | None, Field(description="`whpk_…`, to verify with. Null with a shared secret.")]
    old_secret_signs_until: Annotated[datetime | None, Field(description="Null: one secret signs.")]
    status: WebhookStatus
    disabled_reason: Annotated[
        DisabledReason | None,
        Field(description="`failing`: nothing had arrived for 72 h; `gone`: it answered 410."),
    ]
    position: Annotated[int, Field(description="Events up to here are delivered, or wait as deliveries.")]
    version: Annotated[int, Field(description="The number in its `ETag`. It grows with each change.")]
    created_at: datetime
    created_by: str
    health: WebhookHealth


class NewWebhook(Webhook):
    """A webhook with a secret that was just made. `secret` is shown here, and never again."""

    model_config = ConfigDict(json_schema_extra={"example": {**_EXAMPLE, "secret": "whsec_…"}})

    secret: Annotated[
        str | None,
        Field(description="`whsec_…`, to verify with, or `whsk_…`, an ed25519 key. Null in a repeated answer."),
    ]


class WebhookList(BaseModel):
    """The webhooks, the oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"webhooks": [_EXAMPLE]}})

    webhooks: list[Webhook]


class SentRequest(BaseModel):
    """A request as it was sent. The headers are empty if nothing was sent."""

    headers: dict[str, str]
    body: Annotated[str, Field(description="The bytes that were signed.")]


class TestResult(BaseModel):
    """What became of a test message."""

    __test__ = False  # no test of pytest's

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "delivered": True,
                "status": 200,
                "ms": 41,
                "error": None,
                "reply": "ok",
                "request": {
                    "headers": {
                        "content-type": "application/json",
                        "webhook-id": "notice-4611686018427387905",
                        "webhook-timestamp": "1795852800",
                        "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
                    },
                    "body": '{"type":"webhook.test","timestamp":"2026-11-28T08:00:00.271828Z","data":{}}',
                },
            }
        }
    )

    delivered: bool
    status: Annotated[int | None, Field(description="What the receiver answered. Null: no answer came.")]
    ms: int
    error: Annotated[str | None, Field(description="Why not, in a word, where the status does not say it.")]
    reply: Annotated[str | None, Field(description="The beginning of the answer's body.")]
    request: SentRequest


def shown(view: EndpointView) -> Webhook:
    """The endpoint as the wire has it."""
    members = {name: getattr(view, name) for name in Webhook.model_fields if name not in ("signature", "health")}
    signature = Signature.V1 if view.kind is SignatureKind.V1 else Signature.ED25519
    return Webhook(**members, signature=signature.value, health=WebhookHealth.model_validate(view.health))


def shown_with(view: EndpointView, secret: str | None) -> NewWebhook:
    """The endpoint and its new secret, as the wire has them."""
    return NewWebhook(**shown(view).model_dump(), secret=secret)
