"""Fields for others, the indexes that lists and reports stand on, and summaries of days that are over.

On a large table the indexes take a while (see docs/lists.md for making them beforehand); reads go on meanwhile.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

# Indexes first: they only hold up writers. What needs the table for itself alone comes last, and is short.
INDEXES = """
-- Lists are the merge of one index range per status, so every one of these begins with it. Only placed orders are in
-- them: placing an order enters it once, when it is settled. Null (adopted orders) comes before everything else.
CREATE INDEX IF NOT EXISTS orders_by_status_and_update
    ON orders (status, (coalesce(updated_at, '-infinity')), id)
    WHERE status NOT IN ('Pending', 'Failed') OR adopted;
CREATE INDEX IF NOT EXISTS orders_by_status_and_total
    ON orders (status, (coalesce(total, -1)), id) WHERE status NOT IN ('Pending', 'Failed') OR adopted;
-- Instead of the index that makes numbers unique: it tells the status as well, so that who walks along the numbers for
-- orders of one status looks at no other order. An index that begins with the status would be one more to enter.
CREATE UNIQUE INDEX IF NOT EXISTS orders_by_number ON orders (number) INCLUDE (status, id);
ALTER TABLE orders DROP CONSTRAINT orders_number_key;
-- Since when orders have their status, for a report. Placing an order does not enter it: that is in the ID.
CREATE INDEX IF NOT EXISTS orders_by_move ON orders (status, moved_at) WHERE moved_at IS NOT NULL AND NOT adopted;
CREATE INDEX IF NOT EXISTS order_items_by_product ON order_items (product_id, order_id);
"""

FIELDS = """
-- NOT VALID spares a look at every row: the columns are new, so there is nothing in them.
ALTER TABLE orders
    ADD COLUMN external_reference text,                   -- what the order is called elsewhere; unique
    ADD COLUMN metadata jsonb,                            -- an object; null: empty
    ADD COLUMN public_note text,
    ADD COLUMN private_note text,
    ADD CONSTRAINT reference_is_short CHECK (char_length(external_reference) BETWEEN 1 AND 255) NOT VALID,
    ADD CONSTRAINT metadata_is_an_object CHECK (jsonb_typeof(metadata) = 'object') NOT VALID;

-- A reference is one order's; orders that failed do not count, so the second column tells those apart.
CREATE UNIQUE INDEX orders_one_per_reference ON orders (external_reference, (
    CASE WHEN status = 'Failed' AND NOT adopted THEN id ELSE '00000000-0000-0000-0000-000000000000' END))
    WHERE external_reference IS NOT NULL;

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

-- As in 0003, and what was attached: where nobody else wrote an event, the trigger's says how it was.
CREATE FUNCTION orders_attached(o orders) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('external_reference', o.external_reference, 'metadata', coalesce(o.metadata, '{}'),
                              'notes', jsonb_build_object('public', o.public_note, 'private', o.private_note))
$$;
CREATE OR REPLACE FUNCTION orders_keep_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was jsonb := jsonb_build_object('status', OLD.status, 'held_from', OLD.held_from, 'total', OLD.total);
    becomes jsonb := jsonb_build_object('status', NEW.status, 'held_from', NEW.held_from, 'total', NEW.total);
BEGIN
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'version_counts_changes',
            MESSAGE = 'versions are counted one by one';
    ELSIF (OLD.external_reference, OLD.metadata, OLD.public_note, OLD.private_note)
            IS DISTINCT FROM (NEW.external_reference, NEW.metadata, NEW.public_note, NEW.private_note) THEN
        was := was || orders_attached(OLD);
        becomes := becomes || orders_attached(NEW);
    END IF;
    INSERT INTO order_events (order_id, number, type, before, after, actor, at)
        VALUES (NEW.id, NEW.version, CASE WHEN NEW.status = OLD.status THEN 'changed' ELSE 'moved' END,
                was, becomes, 'database', NEW.updated_at)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

-- When an order was created: its ID (a UUIDv7) begins with the millisecond.
CREATE FUNCTION order_created_at(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_timestamp(('x' || substr(id::text, 1, 8) || substr(id::text, 10, 4))::bit(48)::bigint / 1000.0::float8)
$$;
"""


REPORTS = """
-- The smallest ID that an order can have that was created at this time or later.
CREATE FUNCTION order_id_at(moment timestamp) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- What counts as sold: what was placed and is not cancelled. A returned order was sold.
CREATE FUNCTION order_is_sold(status text, placed_at timestamptz) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT placed_at IS NOT NULL AND status <> 'Cancelled' $$;

-- The sales of the orders that were created on one day (UTC), counted as they stand now.
CREATE FUNCTION sales_of(day date) RETURNS TABLE (orders bigint, units numeric, revenue numeric)
LANGUAGE sql STABLE AS $$
    WITH sold AS MATERIALIZED (
        SELECT o.id, o.total FROM orders o WHERE o.id >= order_id_at(day) AND o.id < order_id_at(day + 1)
            AND order_is_sold(o.status, o.placed_at))
    SELECT count(*), coalesce((SELECT sum(i.quantity) FROM sold s JOIN order_items i ON i.order_id = s.id), 0),
           coalesce(sum(total), 0) FROM sold
$$;
CREATE FUNCTION product_sales_of(day date)
RETURNS TABLE (product_id bigint, orders bigint, units numeric, revenue numeric) LANGUAGE sql STABLE AS $$
    SELECT i.product_id, count(*), sum(i.quantity), sum(i.quantity * i.unit_price::numeric)
    FROM orders o JOIN order_items i ON i.order_id = o.id
    WHERE o.id >= order_id_at(day) AND o.id < order_id_at(day + 1) AND order_is_sold(o.status, o.placed_at)
    GROUP BY i.product_id
$$;

-- Days that are over, summed up. A day is to be believed if it is here and not in sales_changes; any other is counted
-- when it is asked for. So these two are a cache: they make reports quick and never make them wrong.
CREATE TABLE sales_days (
    day     date PRIMARY KEY,
    orders  bigint NOT NULL,
    units   numeric NOT NULL,
    revenue numeric NOT NULL
);
CREATE TABLE sales_of_products (
    day        date NOT NULL,
    product_id bigint NOT NULL,
    orders     bigint NOT NULL,
    units      numeric NOT NULL,
    revenue    numeric NOT NULL,
    PRIMARY KEY (day, product_id)
);
-- Days of which an order was changed that may be summed up already. Only ever added to by those who change orders, so
-- that they never wait for each other here.
CREATE TABLE sales_changes (
    id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day date NOT NULL
);
CREATE INDEX sales_changes_by_day ON sales_changes (day);
CREATE FUNCTION sales_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed uuid;
BEGIN
    IF TG_TABLE_NAME = 'orders' THEN changed := NEW.id; ELSE changed := NEW.order_id; END IF;
    IF order_created_at(changed) < now() - interval '1 day' THEN
        INSERT INTO sales_changes (day) VALUES ((order_created_at(changed) AT TIME ZONE 'UTC')::date);
    END IF;
    RETURN NULL;
END $$;
-- What order_is_sold() says is written out: every statement that changes an order would prepare the call anew.
CREATE TRIGGER sale_is_noted AFTER UPDATE OF status, total, placed_at ON orders FOR EACH ROW
    WHEN (NEW.created_at < now() - interval '1 day' AND (OLD.total IS DISTINCT FROM NEW.total
          OR (OLD.placed_at IS NOT NULL AND OLD.status <> 'Cancelled')
              <> (NEW.placed_at IS NOT NULL AND NEW.status <> 'Cancelled')))
    EXECUTE FUNCTION sales_note_change();
CREATE TRIGGER sale_is_noted AFTER UPDATE OF quantity, unit_price ON order_items FOR EACH ROW
    EXECUTE FUNCTION sales_note_change();

-- Sums up the youngest day that is over and not summed up, or not any more, and returns it; null: there is none.
-- The changes are forgotten before the counting begins: one that comes in between is found by the next round.
-- An order of a day may be changed unnoted for a day, and its transaction take an hour; hence the 49 hours.
CREATE FUNCTION sum_up_a_day() RETURNS date LANGUAGE plpgsql AS $$
DECLARE
    first date := (SELECT order_created_at(id) AT TIME ZONE 'UTC' FROM orders
                   WHERE id >= order_id_at('1971-01-01') ORDER BY id LIMIT 1)::date;
    last date := (now() AT TIME ZONE 'UTC' - interval '49 hours')::date;
    stale date;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('sum_up_a_day')) THEN
        RETURN NULL;
    END IF;
    SELECT d INTO stale FROM generate_series(first, last, interval '1 day') d
        WHERE NOT EXISTS (SELECT FROM sales_days s WHERE s.day = d::date)
           OR EXISTS (SELECT FROM sales_changes c WHERE c.day = d::date)
        ORDER BY d DESC LIMIT 1;
    IF stale IS NOT NULL THEN
        DELETE FROM sales_changes WHERE day = stale;
        DELETE FROM sales_of_products WHERE day = stale;
        INSERT INTO sales_of_products SELECT stale, * FROM product_sales_of(stale);
        INSERT INTO sales_days SELECT stale, * FROM sales_of(stale)
            ON CONFLICT (day) DO UPDATE
            SET orders = excluded.orders, units = excluded.units, revenue = excluded.revenue;
    END IF;
    RETURN stale;
END $$;
"""


def upgrade() -> None:
    for statement in (INDEXES, FIELDS, REPORTS):
        op.get_bind().exec_driver_sql(statement)
