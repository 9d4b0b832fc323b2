"""How the database threads are dealt out."""

import pytest

from orders.postgres.lanes import Lane, share_threads


@pytest.mark.parametrize("threads", range(1, 65))
def test_every_thread_is_somebodys_and_placing_has_most(threads: int) -> None:
    shares = share_threads(threads)
    assert shares.pop(Lane.HEALTH) == 1
    assert shares.pop(Lane.EVENTS) == 2
    assert shares.pop(Lane.WEBHOOKS) == 2
    assert shares.pop(Lane.RELAYS) == 1
    assert sum(shares.values()) == threads
    assert shares[Lane.PLACING] == max(shares.values())
    assert max(shares.values()) - min(shares.values()) <= 1


def test_eight_are_two_for_each() -> None:
    assert share_threads(8) == {lane: 1 if lane in (Lane.HEALTH, Lane.RELAYS) else 2 for lane in Lane}


def test_what_has_no_thread_of_its_own_is_not_there() -> None:
    assert share_threads(2).keys() == {Lane.PLACING, Lane.LISTS, Lane.EVENTS, Lane.WEBHOOKS, Lane.RELAYS, Lane.HEALTH}
