"""Fields for others, the indexes that lists and reports stand on, and summaries of days that are over.

On a large table the indexes take a while (see docs/lists.md for making them beforehand); reads go on meanwhile.
"""

from alembic import op

revision = "0004"
down_revision = "0001"

# Indexes first: they only hold up writers. What needs the table for itself alone comes last, and is short.
INDEXES = """
-- Lists are the merge of one index range per status, so every one of these begins with it. Only placed orders are in
-- them: placing an order enters it once, when it is settled. Null (adopted orders) comes before everything else.
CREATE INDEX IF NOT EXISTS orders_by_status_and_update
    ON orders (status, (coalesce(updated_at, '-infinity')), id)
    WHERE status NOT IN ('Pending', 'Failed') OR adopted;
CREATE INDEX IF NOT EXISTS orders_by_status_and_total
    ON orders (status, (coalesce(total, -1)), id) WHERE status NOT IN ('Pending', 'Failed') OR adopted;
CREATE INDEX IF NOT EXISTS orders_by_status_and_number
    ON orders (status, number, id) WHERE status NOT IN ('Pending', 'Failed') OR adopted;
CREATE INDEX IF NOT EXISTS order_items_by_product ON order_items (product_id, order_id);
"""

FIELDS = """
-- NOT VALID spares a look at every row: the columns are new, so there is nothing in them.
ALTER TABLE orders
    ADD COLUMN external_reference text,                   -- what the order is called elsewhere; unique
    ADD COLUMN metadata jsonb,                            -- an object; null: empty
    ADD COLUMN public_note text,
    ADD COLUMN private_note text,
    ADD COLUMN IF NOT EXISTS status_since timestamptz,    -- null: since it was placed
    ADD CONSTRAINT reference_is_short CHECK (char_length(external_reference) BETWEEN 1 AND 255) NOT VALID,
    ADD CONSTRAINT metadata_is_an_object CHECK (jsonb_typeof(metadata) = 'object') NOT VALID;

-- A reference is one order's; orders that failed do not count, so the second column tells those apart.
CREATE UNIQUE INDEX orders_one_per_reference ON orders (external_reference, (
    CASE WHEN status = 'Failed' AND NOT adopted THEN id ELSE '00000000-0000-0000-0000-000000000000' END))
    WHERE external_reference IS NOT NULL;
CREATE INDEX orders_by_status_and_since ON orders (status, (coalesce(status_since, placed_at)))
    WHERE status NOT IN ('Pending', 'Failed') OR adopted;

-- The members of orders.metadata that are strings: for finding orders by them, newest first. Kept by a trigger.
CREATE TABLE order_metadata (
    key      text NOT NULL,
    value    text NOT NULL,
    order_id uuid NOT NULL REFERENCES orders (id),
    PRIMARY KEY (key, value, order_id)
);
CREATE FUNCTION orders_note_metadata() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM order_metadata m USING jsonb_each_text(OLD.metadata) e
            WHERE m.order_id = OLD.id AND m.key = e.key AND m.value = e.value;
    END IF;
    INSERT INTO order_metadata (key, value, order_id)
        SELECT key, value #>> '{}', NEW.id FROM jsonb_each(NEW.metadata)
        WHERE jsonb_typeof(value) = 'string' AND octet_length(value #>> '{}') <= 2000;  -- what an index takes
    RETURN NULL;
END $$;
CREATE TRIGGER metadata_is_found AFTER INSERT ON orders
    FOR EACH ROW WHEN (NEW.metadata IS NOT NULL) EXECUTE FUNCTION orders_note_metadata();
CREATE TRIGGER metadata_is_found_anew AFTER UPDATE OF metadata ON orders
    FOR EACH ROW WHEN (OLD.metadata IS DISTINCT FROM NEW.metadata) EXECUTE FUNCTION orders_note_metadata();

-- Since when an order stands where it stands, whoever moved it. Placing is not a move: placed_at tells that.
CREATE FUNCTION orders_note_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.status_since := now();
    RETURN NEW;
END $$;
CREATE TRIGGER move_is_noted BEFORE UPDATE OF status ON orders
    FOR EACH ROW WHEN (OLD.status <> 'Pending' AND OLD.status <> NEW.status) EXECUTE FUNCTION orders_note_move();

-- When an order was created: its ID (a UUIDv7) begins with the millisecond.
CREATE FUNCTION order_created_at(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_timestamp(('x' || substr(id::text, 1, 8) || substr(id::text, 10, 4))::bit(48)::bigint / 1000.0::float8)
$$;
"""


def upgrade() -> None:
    for statement in (INDEXES, FIELDS):
        op.get_bind().exec_driver_sql(statement)
