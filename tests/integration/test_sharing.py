"""What replicas share about a neighbour: whose turn it is, and what was learnt. Answers that are lost on their way."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from orders.neighbours.capacity import Capacity
from orders.neighbours.concurrency import Learnt
from orders.neighbours.learning import Learning
from orders.neighbours.learnt_sql import Key, make_rows, read_learnt
from orders.neighbours.turns import TURN_S, Turns
from orders.postgres.database import Database, DatabaseUnavailable
from tests.conftest import execute

KEY = Key("catalog", "of these tests")


class LosesAnswers:
    """A database that does what is asked, and whose answers don't come."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, query: Any) -> Any:
        await self._database.run(query)
        raise DatabaseUnavailable("the answer was lost")


@pytest.fixture
def database(dsn: str) -> Iterator[Database]:
    running = Database(dsn, threads=4)
    running.run_sync(lambda c: make_rows(c, [KEY]))
    yield running
    running.close()


async def test_replicas_never_have_their_turns_at_the_same_time(database: Database) -> None:
    inside: set[int] = set()
    turns_of = [0, 0, 0]

    async def call(replica: int, turns: Turns) -> None:
        await turns.enter()
        inside.add(replica)
        assert len(inside) == 1
        turns_of[replica] += 1
        await asyncio.sleep(0.002)
        inside.discard(replica)
        turns.leave()

    async def work(replica: int) -> None:
        turns = Turns(database, KEY, call_s=1)
        for _ in range(60):
            await call(replica, turns)
        await turns.close()

    await asyncio.gather(*map(work, range(3)))
    assert turns_of == [60, 60, 60]


async def test_a_turn_whose_end_was_not_acknowledged_counts_as_ended(database: Database, monkeypatch: Any) -> None:
    mine, others = Turns(database, KEY, call_s=1), Turns(database, KEY, call_s=1)
    await mine.enter()
    waiting = asyncio.create_task(others.enter())
    await asyncio.sleep(TURN_S * 1.5)  # my turn has been long enough
    mine._under_way = 0  # it has ended, and nobody has passed the turn on yet
    monkeypatch.setattr(mine, "_database", LosesAnswers(database))
    with pytest.raises(DatabaseUnavailable):
        await mine.enter()
    monkeypatch.undo()
    await asyncio.wait_for(waiting, 20)
    again = asyncio.create_task(mine.enter())
    await asyncio.sleep(TURN_S)
    assert not again.done()  # the other one has it
    others.leave()
    await asyncio.wait_for(again, 20)
    mine.leave()
    await asyncio.gather(mine.close(), others.close())


async def test_a_wrong_answer_outweighs_the_proof_that_another_replica_saved_first(database: Database) -> None:
    ours, others = Capacity("It"), Capacity("It")
    learning, learning_of_others = Learning(database, {KEY: ours}), Learning(database, {KEY: others})
    await learning.share_once()
    await learning_of_others.share_once()
    others.adopt(Learnt(8, is_proven=True))
    await learning_of_others.share_once()
    ours.note_wrong("here", asyncio.get_running_loop().time())
    await learning.share_once()
    assert ours.learnt().is_fragile
    assert learning.news.is_set()  # the next round follows at once
    await learning.share_once()
    await learning_of_others.share_once()
    assert others.learnt().is_fragile


async def test_what_is_learnt_while_a_row_is_read_is_not_overwritten_by_it(
    database: Database, monkeypatch: Any, dsn: str
) -> None:
    execute(
        dsn, "UPDATE neighbours SET is_proven = true, concurrency = 64 WHERE address = %s RETURNING 1", (KEY.address,)
    )
    capacity = Capacity("It")
    learning = Learning(database, {KEY: capacity})
    await learning.share_once()
    assert capacity.learnt() == Learnt(64, is_proven=True)
    run = database.run

    async def slowly(*query: Any) -> Any:
        found = await run(*query)
        await asyncio.sleep(0)
        capacity.note_wrong("here", asyncio.get_running_loop().time())
        return found

    monkeypatch.setattr(database, "run", slowly)
    await learning.share_once()
    monkeypatch.undo()
    assert capacity.learnt().is_fragile
    await learning.share_once()
    with contextlib.closing(Database(dsn, threads=1)) as another:
        assert another.run_sync(lambda c: read_learnt(c, [KEY]))[KEY].is_fragile
