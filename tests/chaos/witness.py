"""Triggers in the service's database that write down the life of every claim: what was intended from when to when.

They commit with the statement that they watch, so their rows are what was durable.
"""

import psycopg2

_SCHEMA = """
CREATE SCHEMA chaos;

-- The states of each product's claim, in their order. after null: no intent; lands_until null too: no claim.
CREATE TABLE chaos.claims (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    product_id bigint NOT NULL, batch_id uuid, before bigint, after bigint, lands_until timestamptz);

CREATE FUNCTION chaos.note_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO chaos.claims (product_id) VALUES (OLD.product_id);
    ELSE
        INSERT INTO chaos.claims (product_id, batch_id, before, after, lands_until)
            VALUES (NEW.product_id, NEW.batch_id, NEW.before, NEW.after, NEW.lands_until);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER note_intent AFTER UPDATE ON stock_claims FOR EACH ROW
    WHEN (OLD.after IS NOT NULL OR NEW.after IS NOT NULL) EXECUTE FUNCTION chaos.note_claim();
CREATE TRIGGER note_end AFTER DELETE ON stock_claims FOR EACH ROW
    WHEN (OLD.after IS NOT NULL OR OLD.batch_id IS NULL) EXECUTE FUNCTION chaos.note_claim();

-- Stock that was due back, by the batch whose PUT was to carry it.
CREATE TABLE chaos.carried (
    batch_id uuid NOT NULL, order_id uuid NOT NULL, product_id bigint NOT NULL, quantity bigint NOT NULL,
    PRIMARY KEY (batch_id, order_id, product_id));

CREATE FUNCTION chaos.note_carried() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.carried VALUES (NEW.batch_id, NEW.order_id, NEW.product_id, NEW.quantity) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

CREATE TRIGGER note_carried AFTER UPDATE ON stock_returns FOR EACH ROW
    WHEN (NEW.batch_id IS DISTINCT FROM OLD.batch_id AND NEW.batch_id IS NOT NULL)
    EXECUTE FUNCTION chaos.note_carried();
"""


def install(dsn: str) -> None:
    """Install the triggers."""
    connection = psycopg2.connect(dsn)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(_SCHEMA)
    finally:
        connection.close()
