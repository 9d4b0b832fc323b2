"""Metadata are bounded as they are stored; orders of the simpler service keep the letters of their status, or none."""

from alembic import op

revision = "0007"
down_revision = "0006"

METADATA = """
-- As in 0004, and a bound: jsonb writes numbers out, so that 8 kB of them as they were sent (1e308) were 364 kB as they
-- are stored and sent. The service refuses more than 8 KiB with a sentence; this is for whoever goes around it. A
-- constraint would be asked of every change of an order, also of those whose metadata are too large from earlier on.
CREATE OR REPLACE FUNCTION orders_note_metadata() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF octet_length(NEW.metadata::text) > 16384 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'metadata_is_small',
            MESSAGE = 'the metadata of an order are at most 16 KiB as they are stored';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM order_metadata m USING jsonb_each_text(OLD.metadata) e
            WHERE m.order_id = OLD.id AND m.key = e.key AND m.value = e.value;
    END IF;
    INSERT INTO order_metadata (key, value, order_id)
        SELECT key, value #>> '{}', NEW.id FROM jsonb_each(NEW.metadata)
        WHERE jsonb_typeof(value) = 'string' AND octet_length(value #>> '{}') <= 2000;  -- what an index takes
    RETURN NULL;
END $$;
"""

# An adopted order may have the status '', which is also how a day is marked as counted.
STANDINGS = """
CREATE OR REPLACE FUNCTION count_standings() RETURNS date LANGUAGE plpgsql AS $$
DECLARE
    last date := (now() AT TIME ZONE 'UTC' - interval '49 hours')::date;
    counted date;
    so_far bigint;
    coming date;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('count_standings')) THEN
        RETURN NULL;
    END IF;
    counted := (SELECT coalesce(max(day), '1969-12-31') FROM standing_days);
    -- Looked up first: a plan that joined the table with itself, made while it was empty, would take its square.
    so_far := (SELECT max(id) FROM (SELECT id FROM standing_changes ORDER BY id LIMIT 100000) c);
    WITH gone AS (
        DELETE FROM standing_changes WHERE id <= so_far
        RETURNING day, status, change)
    INSERT INTO standing_days (day, status, orders)
        SELECT day, status, sum(change) FROM gone WHERE day <= counted GROUP BY day, status
        ON CONFLICT (day, status) DO UPDATE SET orders = standing_days.orders + excluded.orders;
    coming := (SELECT min(day) FROM (
        (SELECT order_stands_since(id, NULL, true) AS day FROM orders
         WHERE id >= order_id_at(counted + 1) ORDER BY id LIMIT 1)
        UNION ALL
        SELECT (SELECT order_stands_since(id, moved_at, false) FROM orders o
                WHERE o.status = s.status AND NOT o.adopted
                    AND o.moved_at >= (counted + 1)::timestamp AT TIME ZONE 'UTC'
                ORDER BY o.moved_at LIMIT 1)
        FROM order_statuses_there_are() s) d);
    IF coming IS NULL OR coming > last THEN
        RETURN NULL;
    END IF;
    WITH gone AS (DELETE FROM standing_changes WHERE day = coming)
    INSERT INTO standing_days (day, status, orders)
        SELECT coming, status, sum(orders) FROM (
            SELECT '' AS status, 0 AS orders
            UNION ALL SELECT status, count(*) FROM standings_between(coming, coming) GROUP BY status) s
        GROUP BY status;
    RETURN coming;
END $$;
"""

# Adopted by an earlier version, "Payment pending" became "Payment Pending". What it was is in the schema
# orders_before_adoption. Only where there is such an order is the table locked against writers, until this is done.
LETTERS = """
DO $$
BEGIN
    IF to_regclass('orders_before_adoption.orders') IS NULL THEN
        RETURN;
    END IF;
    CREATE TEMPORARY TABLE letters ON COMMIT DROP AS
        SELECT o.id, b.status FROM orders_before_adoption.orders b JOIN orders o ON o.number = b.id
        WHERE o.adopted AND o.version = 1 AND o.status <> b.status
            AND o.status = initcap(replace(btrim(b.status), '_', ' '))
            AND o.status NOT IN (SELECT s.status FROM order_statuses s)
            AND o.status <> ALL ('{Pending,Ordered,Confirmed,Paid,Processing,Shipped,Delivered,Completed,On Hold,
                                   Cancelled,Returned,Refunded,Failed}');
    IF EXISTS (SELECT FROM letters) THEN
        ALTER TABLE orders DISABLE TRIGGER check_status;
        UPDATE orders o SET status = letters.status FROM letters WHERE o.id = letters.id;
        ALTER TABLE orders ENABLE TRIGGER check_status;
    END IF;
END $$;
"""


def upgrade() -> None:
    for statement in (METADATA, STANDINGS, LETTERS):
        op.get_bind().exec_driver_sql(statement)
