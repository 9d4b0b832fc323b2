"""Shares what is learnt of the neighbours through the database, so that other replicas and restarts begin with it."""

import asyncio
from collections.abc import Mapping

from orders.neighbours.capacity import Capacity
from orders.neighbours.concurrency import Learnt
from orders.neighbours.learnt_sql import Key, keep_learnt, make_rows, read_learnt
from orders.postgres.database import Database

WORTH_KEEPING = 1.5
"""Factor by which a limit has to change before it is saved. The saved limit is only a start: each replica finds its
own.
"""


class Learning:
    """Keeps what this replica learns of its neighbours, and takes over what others learn."""

    def __init__(self, database: Database, capacities: Mapping[Key, Capacity]) -> None:
        self._database = database
        self._capacities = capacities
        self._known: dict[Key, Learnt] = {}
        self.news = asyncio.Event()  # set when there is something to share
        for capacity in capacities.values():
            capacity.on_news = self.news.set

    def learnt(self) -> dict[str, Learnt]:
        """What this replica knows of each neighbour, by the neighbour's name."""
        return {key.name: capacity.learnt() for key, capacity in self._capacities.items()}

    async def share_once(self) -> None:
        """Save what is new here, then adopt what is new elsewhere. Raises DatabaseUnavailable."""
        for key, capacity in self._capacities.items():
            known, learnt = self._known.get(key), capacity.learnt()
            if known and _is_news(learnt, known):
                await self._database.run(
                    lambda c, key=key, learnt=learnt, known=known: keep_learnt(c, key, learnt, known)  # type: ignore[misc]
                )
        keys = list(self._capacities)
        if len(self._known) < len(keys):
            await self._database.run(lambda c: make_rows(c, keys))
        before = {key: capacity.learnt().verdict for key, capacity in self._capacities.items()}
        found = await self._database.run(lambda c: read_learnt(c, keys))
        for key, learnt in found.items():
            ours = self._capacities[key].learnt()
            is_news_here = ours.verdict != before[key]  # learnt while the row was read: saved in the next round
            if _is_worse(ours, self._known.get(key), learnt):
                self.news.set()  # another replica was quicker to save its proof
            elif not is_news_here and (key not in self._known or learnt.verdict != ours.verdict):
                self._capacities[key].adopt(learnt)
            self._known[key] = learnt


def _is_worse(ours: Learnt, known: Learnt | None, found: Learnt) -> bool:
    """Whether we saw a wrong answer since `known` that whoever saved `found` did not see. It outweighs any proof."""
    return known is not None and ours.verdict != known.verdict and ours.wrong_count > found.wrong_count


def _is_news(learnt: Learnt, known: Learnt) -> bool:
    moved = max(learnt.limit, known.limit) >= WORTH_KEEPING * min(learnt.limit, known.limit)
    return learnt.verdict != known.verdict or (learnt.is_proven and moved)
