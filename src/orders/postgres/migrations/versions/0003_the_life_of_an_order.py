"""The table of statuses, what happened to each order, and lines of which a part was cancelled or came back."""

from alembic import op

revision = "0003"
down_revision = "0002"

STATUSES = """
-- Which statuses there are, and which may follow which. The rows are those of the file that `order_workflow` has; these
-- first ones are what every version before this one had in its code, so that a running older replica goes on.
CREATE TABLE order_statuses (
    status           text PRIMARY KEY,
    position         smallint NOT NULL UNIQUE,            -- the order of an order's life
    label            text NOT NULL,
    description      text NOT NULL,
    allowed          text[] NOT NULL,                     -- what may follow, besides the way back from a hold
    is_hold          boolean NOT NULL,
    is_final         boolean NOT NULL,
    gives_stock_back boolean NOT NULL,
    CONSTRAINT final_has_no_next CHECK (NOT is_final OR allowed = '{}')
);
INSERT INTO order_statuses VALUES
    ('Pending', 0, 'Pending', '', '{}', false, false, false),
    ('Ordered', 1, 'Ordered', '', '{Confirmed,Paid,Processing,Shipped,Delivered,Completed,On Hold,Cancelled}',
     false, false, false),
    ('Confirmed', 2, 'Confirmed', '', '{Paid,Processing,Shipped,Delivered,Completed,On Hold,Cancelled}',
     false, false, false),
    ('Paid', 3, 'Paid', '', '{Processing,Shipped,Delivered,Completed,On Hold,Cancelled}', false, false, false),
    ('Processing', 4, 'Processing', '', '{Shipped,Delivered,Completed,On Hold,Cancelled}', false, false, false),
    ('Shipped', 5, 'Shipped', '', '{Delivered,Completed,Returned,Refunded}', false, false, false),
    ('Delivered', 6, 'Delivered', '', '{Completed,Returned,Refunded}', false, false, false),
    ('Completed', 7, 'Completed', '', '{}', false, true, false),
    ('On Hold', 8, 'On Hold', '', '{Cancelled}', true, false, false),
    ('Cancelled', 9, 'Cancelled', '', '{}', false, true, true),
    ('Returned', 10, 'Returned', '', '{Refunded}', false, false, false),
    ('Refunded', 11, 'Refunded', '', '{}', false, true, false),
    ('Failed', 12, 'Failed', '', '{}', false, true, false);

-- The file that the statuses are from. No row yet: the first start of this version brings its own.
CREATE TABLE order_workflow (
    is_only      boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    document     text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now()
);

-- What may follow. An adopted order may stand in a status that was never in the table, or in Pending in another sense:
-- it may go anywhere. Another one stands in a final status that was in an earlier table: nothing follows.
CREATE FUNCTION orders_allowed(status text, held_from text, adopted boolean) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT CASE WHEN s.is_hold AND $2 IS NOT NULL THEN $2 || array_remove(s.allowed, $2) ELSE s.allowed END
         FROM order_statuses s WHERE s.status = $1 AND NOT ($3 AND $1 = 'Pending')),
        (SELECT array_agg(s.status ORDER BY s.position) FROM order_statuses s
         WHERE s.status NOT IN ('Pending', 'Failed') AND $3),
        '{}')
$$;
"""

# Every write of a status passes here, whoever makes it. What placing an order and its recovery do (from nothing to
# Pending, and on to Ordered or Failed) is left to the constraints of 0001, so that placing costs nothing more.
MOVES = """
ALTER TABLE orders DROP CONSTRAINT status_is_known, DROP CONSTRAINT held_from_somewhere;
ALTER TABLE orders ADD COLUMN moved_at timestamptz;       -- since when it has its status; null: since it was placed

CREATE FUNCTION orders_check_status() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    hold boolean := (SELECT is_hold FROM order_statuses s WHERE s.status = NEW.status);
BEGIN
    IF hold IS NULL AND NOT NEW.adopted THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'status_is_known',
            MESSAGE = 'there is no status ' || NEW.status;
    ELSIF hold IS DISTINCT FROM (NEW.held_from IS NOT NULL) AND NOT NEW.adopted THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'held_from_somewhere',
            MESSAGE = 'an order that is on hold, and no other, knows where it was';
    ELSIF TG_OP = 'UPDATE' AND NEW.status <> OLD.status THEN
        IF NEW.status <> ALL (orders_allowed(OLD.status, OLD.held_from, OLD.adopted)) THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'status_may_follow',
                MESSAGE = NEW.status || ' can''t follow ' || OLD.status;
        ELSIF NEW.version <> OLD.version + 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'version_counts_changes',
                MESSAGE = 'a change of status is a new version';
        END IF;
        NEW.moved_at := clock_timestamp();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER check_first_status BEFORE INSERT ON orders FOR EACH ROW
    WHEN (NEW.status <> 'Pending') EXECUTE FUNCTION orders_check_status();
CREATE TRIGGER check_status BEFORE UPDATE OF status, held_from ON orders FOR EACH ROW
    WHEN ((OLD.status, OLD.held_from) IS DISTINCT FROM (NEW.status, NEW.held_from)
          AND NOT (OLD.status = 'Pending' AND NEW.status IN ('Ordered', 'Failed') AND NEW.held_from IS NULL))
    EXECUTE FUNCTION orders_check_status();
"""

HISTORY = """
-- What happened to an order, in its own transaction; `number` is the order's version after it.
CREATE TABLE order_events (
    order_id   uuid NOT NULL REFERENCES orders (id),
    number     integer NOT NULL CHECK (number > 0),
    type       text NOT NULL,                             -- placed, failed, moved, cancelled, returned, changed
    before     jsonb,                                     -- those members of the order that changed, as they were
    after      jsonb,
    details    jsonb,                                     -- what was asked for, where before and after don't tell
    actor      text NOT NULL,
    reason     text,
    note       text,
    request_id text,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, number)
);

-- No new version without its event: who writes none (an older replica, a person in psql) has one written for them.
CREATE FUNCTION orders_keep_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'version_counts_changes',
            MESSAGE = 'versions are counted one by one';
    END IF;
    INSERT INTO order_events (order_id, number, type, before, after, actor, at)
        VALUES (NEW.id, NEW.version, CASE WHEN NEW.status = OLD.status THEN 'changed' ELSE 'moved' END,
                jsonb_build_object('status', OLD.status, 'held_from', OLD.held_from, 'total', OLD.total),
                jsonb_build_object('status', NEW.status, 'held_from', NEW.held_from, 'total', NEW.total),
                'database', NEW.updated_at)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_history AFTER UPDATE ON orders FOR EACH ROW
    WHEN (NEW.version <> OLD.version) EXECUTE FUNCTION orders_keep_history();
"""

PARTS = """
-- What is left of a line (0: the whole line was cancelled), what was cancelled of it, and how much of it came back.
ALTER TABLE order_items ADD COLUMN cancelled integer NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
                        ADD COLUMN returned integer NOT NULL DEFAULT 0 CHECK (returned >= 0),
                        DROP CONSTRAINT order_items_quantity_check,
                        ADD CONSTRAINT quantity_is_left CHECK (quantity > 0 OR (quantity = 0 AND cancelled > 0)),
                        ADD CONSTRAINT returned_was_there CHECK (returned <= quantity);

-- Stock goes back once per order and product for all that is left (number 0, which is what an older replica writes),
-- and once for every event that gives a part of it back (number: the event's).
ALTER TABLE stock_returns ADD COLUMN number integer NOT NULL DEFAULT 0,
                          DROP CONSTRAINT stock_returns_pkey,
                          ADD PRIMARY KEY (order_id, product_id, number);
"""


def upgrade() -> None:
    for statement in (STATUSES, MOVES, HISTORY, PARTS):
        op.get_bind().exec_driver_sql(statement)
