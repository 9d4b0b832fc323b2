"""What this service did to each product's stock, for ever: `orders reconcile` compares it with the catalog."""

from alembic import op

revision = "0002"
down_revision = "0001"

RECORD = """
-- One row for each time that a product's stock was changed, or may have been. Nothing in it is ever changed. The kinds:
--   moved      our PUT of `after` has landed: a batch of orders, or stock that went back
--   in doubt   nobody can tell whether it has: in the end the catalog said `found`, which is neither
--   corrected  our PUT of `after` has landed: a person told `orders reconcile` to
--   accepted   a person told `orders reconcile` that the catalog's `after` is right
-- What the catalog should say is the newest row's figure. What lies between a row's figure and the next row's `before`
-- was somebody else's doing.
ALTER TABLE stock_drifts RENAME TO stock_record;
ALTER TABLE stock_record ADD COLUMN kind text NOT NULL DEFAULT 'in doubt'
    CONSTRAINT kind_is_known CHECK (kind IN ('moved', 'in doubt', 'corrected', 'accepted'));
ALTER TABLE stock_record ADD COLUMN figure bigint
    GENERATED ALWAYS AS (CASE WHEN kind = 'in doubt' THEN found ELSE after END) STORED;
ALTER TABLE stock_record ADD CONSTRAINT only_doubt_has_found CHECK (kind = 'in doubt' OR found IS NULL);
CREATE INDEX stock_record_by_product ON stock_record (product_id, id DESC);
CREATE INDEX stock_record_doubts ON stock_record (product_id) WHERE kind = 'in doubt';

-- A replica of the version before this one still writes its drifts here.
CREATE VIEW stock_drifts AS SELECT product_id, batch_id, before, after, found, noted_at FROM stock_record
    WHERE kind = 'in doubt';

CREATE FUNCTION stock_record_is_for_ever() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'stock_record is only ever added to';
END $$;
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON stock_record
    FOR EACH STATEMENT EXECUTE FUNCTION stock_record_is_for_ever();

-- Whether this claim's intent is a person's correction, not a batch of orders.
ALTER TABLE stock_claims ADD COLUMN is_correction boolean NOT NULL DEFAULT false;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(RECORD)
