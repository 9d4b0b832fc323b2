"""How long a product stays quiet once recovery has found out what became of it."""

from uuid_utils.compat import uuid7

from orders.database import connect
from orders.store import recovering
from orders.store.recovering import Ended
from tests.conftest import execute

HORIZON_S, LEASE_S = 2, 100


def test_a_claim_that_recovery_has_ended_is_quiet_for_the_horizon_and_no_lease(dsn: str) -> None:
    dead, ours, connection = uuid7(), uuid7(), connect(dsn)
    execute(
        dsn,
        """INSERT INTO stock_claims (product_id, batch_id, lease_until, before, after, lands_until)
           VALUES (7, %s, now() - interval '1 s', 5, 4, now() + interval '1 s')""",
        (str(dead),),
    )
    assert [orphan.product_id for orphan in recovering.take_over(connection, dead, ours, LEASE_S)] == [7]
    recovering.intend_again(
        connection, ours, HORIZON_S, [7]
    )  # the same value is sent again: as late as the lease's end
    recovering.end_claims(connection, ours, HORIZON_S, Ended(landed=[7]))  # it was acknowledged: nothing more is sent
    connection.close()
    quiet = (
        "SELECT batch_id, lands_until > now() + interval '1 s', lands_until <= now() + interval '2 s' FROM stock_claims"
    )
    assert execute(dsn, quiet) == [(None, True, True)]
