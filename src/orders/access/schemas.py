"""The wire's format of API keys."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from typing_extensions import TypeAliasType

from orders.access.granting import CHANNEL, MAX_RATE, NAME, Grant, Preset, scopes_of
from orders.access.keys import ID
from orders.order.schema import WHOLE
from orders.principal import Scope

KEY_ID_EXAMPLE = "k3V9aQ2m"
_NEXT_ID_EXAMPLE = "pX81cWz0"
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

MAX_OVERLAP_H = 720
"""Maximum number of hours that a replaced key goes on: 30 days."""


def _as_moment(text: object) -> datetime:
    if isinstance(text, str) and _TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise ValueError("must be a time with its offset, like 2027-02-28T00:00:00Z")


Moment = Annotated[datetime, BeforeValidator(_as_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
ScopeName = TypeAliasType(
    "ScopeName",
    Annotated[
        str,
        Field(
            description="What a key may do; later versions add some.",
            examples=["orders:read"],
            json_schema_extra={"x-extensible-enum": [str(scope) for scope in Scope]},
        ),
    ],
)
"""The scope of a key that there is. It is not an enum: a client with one could not read a key of a newer version."""

KeyIdSchema = WithJsonSchema({"type": "string", "pattern": f"^{ID}$", "examples": [KEY_ID_EXAMPLE]})

_EXAMPLE: dict[str, Any] = {
    "id": KEY_ID_EXAMPLE,
    "name": "shop",
    "scopes": ["orders:read", "orders:place"],
    "channel": "web",
    "rate": None,
    "expires_at": "2027-02-28T00:00:00Z",
    "replaced_by": None,
    "revoked_at": None,
    "used_at": "2026-11-28T08:15:00Z",
    "created_at": "2026-11-28T08:00:00.271828Z",
    "created_by": "local",
}
_SECRET_EXAMPLE = "ord_k3V9aQ2m_" + "…" * 3


class KeyToMake(BaseModel):
    """A key to make. What it may do is in `scopes`, in `as`, or in both together."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"name": "shop", "as": "storefront", "channel": "web"}]},
    )

    name: Annotated[
        str,
        Field(pattern=f"^{NAME}$", description="Whose key it is. The history of orders names it: `key:shop`."),
    ]
    scopes: Annotated[
        list[Annotated[Scope, Field(strict=False)]] | None,
        Field(min_length=1, max_length=len(Scope), description="What it may do."),
    ] = None
    preset: Annotated[
        Annotated[Preset, Field(strict=False)] | None,
        Field(alias="as", description="The work that it is for, instead of its scopes."),
    ] = None
    channel: Annotated[
        Annotated[str, Field(pattern=f"^{CHANNEL}$")] | None,
        Field(description="It sees and places orders of this channel only."),
    ] = None
    expires_at: Annotated[Moment | None, Field(description="When it ends. Without it: when it is revoked.")] = None
    rate: Annotated[
        Annotated[int, Field(ge=1, le=MAX_RATE), WHOLE] | None,
        Field(description="How many requests per second it may make. Without it: as many as the settings allow."),
    ] = None

    @model_validator(mode="after")
    def _may_something(self) -> Self:
        if self.scopes is None and self.preset is None:
            raise ValueError("must have `scopes`, or `as`")
        return self

    def grant(self) -> Grant:
        """What is asked for."""
        presets = [self.preset] if self.preset else []
        return Grant(self.name, scopes_of(presets, self.scopes or ()), self.channel, self.rate, self.expires_at)


class KeyRotation(BaseModel):
    """How long the old key goes on beside the new one."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"keep_old_for_h": 24}]})

    keep_old_for_h: Annotated[
        int, Field(ge=0, le=MAX_OVERLAP_H), WHOLE, Field(description="Hours; 0 ends the old key at once.")
    ] = 24


class Key(BaseModel):
    """An API key, without its secret, which nobody can read any more. `used_at` is exact to the minute."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _EXAMPLE})

    id: Annotated[str, KeyIdSchema]
    name: str
    scopes: list[ScopeName]
    channel: Annotated[str | None, Field(description="Null: orders of all channels.")]
    rate: Annotated[int | None, Field(description="Requests per second. Null: as many as the settings allow.")]
    expires_at: datetime | None
    replaced_by: Annotated[str | None, Field(description="The ID of the key that was made from this one.")]
    revoked_at: datetime | None
    used_at: datetime | None
    created_at: datetime
    created_by: Annotated[str, Field(description="Whoever made it: `local`, `cli:anna`, or another key.")]


class NewKey(Key):
    """A key that was just made. `key` is shown here, and never again."""

    model_config = ConfigDict(
        from_attributes=True, json_schema_extra={"example": {**_EXAMPLE, "used_at": None, "key": _SECRET_EXAMPLE}}
    )

    key: Annotated[str, Field(description="What to send in `Authorization: Bearer …`.")]


class KeyList(BaseModel):
    """The keys, newest first: at most 1000. Those that were revoked, have expired or were replaced are among them."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"keys": [{**_EXAMPLE, "id": _NEXT_ID_EXAMPLE}, {**_EXAMPLE}]}}
    )

    keys: list[Key]
