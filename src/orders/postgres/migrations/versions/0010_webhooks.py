"""Webhooks: endpoints, their secrets, and the deliveries to them."""

from alembic import op

revision = "0010"
down_revision = "0009"

ENDPOINTS = """
-- An endpoint is a position in the feed, and rows for what it has not yet got of the events up to there.
CREATE TABLE webhooks (
    id              uuid PRIMARY KEY,
    url             text NOT NULL CHECK (char_length(url) <= 2048),
    description     text CHECK (char_length(description) <= 500),
    types           text[] NOT NULL CHECK (cardinality(types) BETWEEN 1 AND 50),  -- order.placed, order.*, *
    channel         text CHECK (channel ~ '^[a-z0-9_-]{1,64}$'),  -- null: orders of every channel
    payload         text NOT NULL CHECK (payload IN ('full', 'thin')),
    schema_version  smallint NOT NULL DEFAULT 1,
    ordering        text NOT NULL CHECK (ordering IN ('order', 'none')),
    concurrency     smallint NOT NULL DEFAULT 8 CHECK (concurrency BETWEEN 1 AND 64),  -- requests at once
    status          text NOT NULL DEFAULT 'enabled' CHECK (status IN ('enabled', 'disabled')),
    disabled_reason text CHECK (disabled_reason IN ('asked', 'failing', 'gone')),
    position        bigint NOT NULL,                      -- events up to here have their deliveries
    failed_in_row   integer NOT NULL DEFAULT 0,           -- attempts
    failing_since   timestamptz,
    told_until      timestamptz,                          -- notices that it fails are sent up to here
    succeeded_at    timestamptz,
    slow_until      timestamptz,                          -- nothing is sent before; it asked for it, or it fails
    version         integer NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    created_by      text NOT NULL,
    CONSTRAINT disabled_for_a_reason CHECK ((status = 'disabled') = (disabled_reason IS NOT NULL))
) WITH (fillfactor = 50);

-- Sealed with a key that is not in the database. Several sign during a rotation.
CREATE TABLE webhook_secrets (
    webhook_id  uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    number      integer NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('v1', 'v1a')),
    sealed      bytea NOT NULL,
    public_key  text,
    signs_until timestamptz,                              -- null: the present one
    PRIMARY KEY (webhook_id, number)
);
"""

DELIVERIES = """
CREATE TABLE webhook_deliveries (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id  uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    position    bigint,                                   -- of the event; null: a notice, which is no order's
    order_id    uuid,
    number      integer,                                  -- of the event in its order
    type        text NOT NULL,
    notice      jsonb,
    round       smallint NOT NULL DEFAULT 0,              -- 0: the first; 1, 2, …: delivered again on demand
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sending', 'delivered', 'failed')),
    attempts    smallint NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL DEFAULT now(),       -- sending: when it counts as lost
    created_at  timestamptz NOT NULL DEFAULT now(),
    first_at    timestamptz,
    last_at     timestamptz,
    last_status smallint,
    last_ms     integer,
    last_error  text CHECK (char_length(last_error) <= 300),
    last_reply  text CHECK (char_length(last_reply) <= 1000),
    CONSTRAINT event_or_notice CHECK ((position IS NULL) = (notice IS NOT NULL)
        AND (position IS NULL) = (order_id IS NULL) AND (position IS NULL) = (number IS NULL)),
    CONSTRAINT delivered_once_per_round UNIQUE (webhook_id, position, round)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, due_at, id)
    WHERE state IN ('waiting', 'sending');
CREATE INDEX webhook_deliveries_of_order ON webhook_deliveries (order_id, position)
    WHERE state IN ('waiting', 'sending');
CREATE INDEX webhook_deliveries_listed ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_done ON webhook_deliveries (created_at) WHERE state IN ('delivered', 'failed');

-- Failed attempts. A success is told by its delivery.
CREATE TABLE webhook_attempts (
    delivery_id bigint NOT NULL REFERENCES webhook_deliveries ON DELETE CASCADE,
    number      smallint NOT NULL,
    at          timestamptz NOT NULL,
    ms          integer,
    status      smallint,
    error       text CHECK (char_length(error) <= 300),
    reply       text CHECK (char_length(reply) <= 1000),
    PRIMARY KEY (delivery_id, number)
);
"""


def upgrade() -> None:
    for statement in (ENDPOINTS, DELIVERIES):
        op.get_bind().exec_driver_sql(statement)
