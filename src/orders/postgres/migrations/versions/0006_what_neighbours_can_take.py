"""What was learnt of the neighbours: how many calls at once they can take."""

from alembic import op

revision = "0006"
down_revision = "0005"

NEIGHBOURS = """
-- One row for each address of a neighbour that was ever called. Some neighbours mix up calls that overlap. Which ones
-- do, is learnt once, and not again by each replica and after each restart at customers' expense.
CREATE TABLE neighbours (
    name text NOT NULL CONSTRAINT neighbour_is_known CHECK (name IN ('catalog', 'cart')),
    address text NOT NULL,                     -- a digest: a URL may hold a password
    concurrency integer NOT NULL DEFAULT 1     -- calls at once, per replica
        CONSTRAINT concurrency_is_positive CHECK (concurrency > 0),
    is_proven boolean NOT NULL DEFAULT false,  -- calls may overlap: enough of them were answered rightly
    wrong_count integer NOT NULL DEFAULT 0     -- answers that were mixed up
        CONSTRAINT wrong_count_is_a_count CHECK (wrong_count >= 0),
    probe_at timestamptz NOT NULL DEFAULT now(),   -- two calls at once are not tried before
    learnt_at timestamptz NOT NULL DEFAULT now(),
    -- Whose turn it is, while calls must not overlap: one replica calls, and passes the turn on. A turn is a lease.
    holder uuid,
    held_until timestamptz,
    wanted_until timestamptz,                  -- another replica waits for the turn
    PRIMARY KEY (name, address),
    CONSTRAINT who_holds_has_a_lease CHECK ((holder IS NULL) = (held_until IS NULL))
);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(NEIGHBOURS)
