"""How many orders stand at each status since which day: counted once for days that are over, as sales are in 0004."""

from alembic import op

revision = "0005"
down_revision = "0004"

STANDINGS = """
-- Since which day (UTC) an order has its status: that of its move there or, never moved, of its creation. Of adopted
-- orders nobody knows it; their IDs begin with the time 0, and so they all count on 1970-01-01.
CREATE FUNCTION order_stands_since(id uuid, moved_at timestamptz, adopted boolean) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ((CASE WHEN adopted OR moved_at IS NULL THEN order_created_at(id) ELSE moved_at END)
            AT TIME ZONE 'UTC')::date
$$;

-- Those days, counted, up to the last one here. Each is here, be it with status '' and no order.
CREATE TABLE standing_days (
    day    date NOT NULL,
    status text NOT NULL,
    orders bigint NOT NULL,
    PRIMARY KEY (day, status)
);
-- What came or went since a day was counted. Only ever added to by those who change orders, so that they never wait for
-- each other here. With these the counts are exact; without both tables they would be, too, but slow.
CREATE TABLE standing_changes (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day    date NOT NULL,
    status text NOT NULL,
    change integer NOT NULL
);

CREATE FUNCTION standings_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO standing_changes (day, status, change)
        SELECT day, status, change
        FROM (VALUES (order_stands_since(OLD.id, OLD.moved_at, OLD.adopted), OLD.status, OLD.adopted, -1),
                     (order_stands_since(NEW.id, NEW.moved_at, NEW.adopted), NEW.status, NEW.adopted, 1))
             AS v (day, status, adopted, change)
        WHERE day < now() - interval '1 day' AND (status NOT IN ('Pending', 'Failed') OR adopted);
    RETURN NULL;
END $$;
-- Of an order that is younger than a day nothing is counted: placing one costs no more than this condition.
CREATE TRIGGER standing_is_noted AFTER UPDATE OF status, moved_at, adopted ON orders FOR EACH ROW
    WHEN ((NEW.created_at < now() - interval '1 day') IS NOT FALSE
          AND (OLD.status, OLD.moved_at, OLD.adopted) IS DISTINCT FROM (NEW.status, NEW.moved_at, NEW.adopted))
    EXECUTE FUNCTION standings_note_change();
-- Orders that are brought in from elsewhere, with the times that they had there.
CREATE TRIGGER old_standing_is_noted AFTER INSERT ON orders FOR EACH ROW
    WHEN ((NEW.created_at < now() - interval '1 day') IS NOT FALSE) EXECUTE FUNCTION standings_note_change();
CREATE TRIGGER old_sale_is_noted AFTER INSERT ON orders FOR EACH ROW
    WHEN (NEW.created_at < now() - interval '1 day') EXECUTE FUNCTION sales_note_change();

-- Each status that some order has, by one index probe per status: adopted orders may stand in any.
CREATE FUNCTION order_statuses_there_are() RETURNS TABLE (status text) LANGUAGE sql STABLE ROWS 15 AS $$
    WITH RECURSIVE there (status) AS (
        SELECT min(o.status) FROM orders o
        UNION ALL SELECT (SELECT min(n.status) FROM orders n WHERE n.status > there.status) FROM there
        WHERE there.status IS NOT NULL)
    SELECT there.status FROM there WHERE there.status IS NOT NULL
$$;

-- The placed orders that came to their status on these days (both included), and when. Along indexes, also where one
-- status is asked for.
CREATE FUNCTION standings_between(first date, last date) RETURNS TABLE (status text, since timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT o.status, o.placed_at FROM orders o
    WHERE o.id >= order_id_at(first) AND o.id < order_id_at(last + 1) AND (o.moved_at IS NULL OR o.adopted)
        AND (o.status NOT IN ('Pending', 'Failed') OR o.adopted)
    UNION ALL
    SELECT o.status, o.moved_at FROM order_statuses_there_are() s JOIN orders o ON o.status = s.status
    WHERE o.status NOT IN ('Pending', 'Failed') AND NOT o.adopted
        AND o.moved_at >= first::timestamp AT TIME ZONE 'UTC' AND o.moved_at < (last + 1)::timestamp AT TIME ZONE 'UTC'
$$;

-- Adds up the changes, counts the next day that is over, and returns it; null: there is none, or someone else is at it.
-- A day's count and the removal of its changes are one statement, and so of one moment: a change is in the one or,
-- later, in the other. An order may be changed unnoted for a day, and its transaction take an hour; hence the 49 hours.
CREATE FUNCTION count_standings() RETURNS date LANGUAGE plpgsql AS $$
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
        SELECT coming, '', 0
        UNION ALL SELECT coming, status, count(*) FROM standings_between(coming, coming) GROUP BY status;
    RETURN coming;
END $$;

-- How many placed orders came to their status from `first` to `last` and stand there still: all of them by status, each
-- day that is counted and what is left of them, in one row.
CREATE FUNCTION standings() RETURNS TABLE (status text, first date, last date, orders bigint) LANGUAGE sql STABLE AS $$
    WITH counted AS (SELECT coalesce(max(day), '1969-12-31') AS last FROM standing_days),
    days AS (
        SELECT day, status, orders FROM standing_days
        UNION ALL SELECT day, status, change FROM standing_changes, counted WHERE day <= counted.last),
    spans AS (
        SELECT greatest(span.first, counted.last + 1) AS first, span.last FROM counted,
            (VALUES ('1970-01-01'::date, '1970-01-01'::date), ('1970-01-02', '9999-12-30')) AS span (first, last)
        WHERE span.last > counted.last)
    SELECT status, day, day, sum(orders)::bigint FROM days GROUP BY status, day HAVING sum(orders) > 0
    UNION ALL
    SELECT s.status, spans.first, spans.last, count(*)
    FROM spans CROSS JOIN LATERAL standings_between(spans.first, spans.last) s GROUP BY 1, 2, 3
$$;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(STANDINGS)
