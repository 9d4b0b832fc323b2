"""A reader of the feed, all through the storm: it asks any replica, follows `next`, and keeps what it got."""

import asyncio
import random
from collections.abc import Sequence

from tests.chaos.credentials import Credentials
from tests.chaos.evidence import FeedEvent
from tests.chaos.http import Http, NoAnswer, NotReached, Reply
from tests.chaos.processes import Process

WAIT_S = 2.0


class Reader:
    """It starts at the beginning, and stops once it has read all there is after `finish`."""

    def __init__(self, replicas: Sequence[Process], credentials: Credentials, chance: random.Random) -> None:
        self.events: list[FeedEvent] = []
        self.refusals: list[str] = []
        self._replicas = replicas
        self._credentials = credentials
        self._chance = chance
        self._is_last = False

    def finish(self) -> None:
        """Read to the end, and stop. Every event has its position by now."""
        self._is_last = True

    async def run(self) -> None:
        """Read until told to finish. An answer that does not come is asked for again."""
        http, address, is_last = Http("the reader"), f"/events?after=0&limit=50&wait={WAIT_S}", False
        try:
            while not is_last:
                is_last = self._is_last
                reply = await self._ask(http, address)
                if reply is None:
                    is_last = False
                    await asyncio.sleep(0.05)
                    continue
                found = [FeedEvent(e["position"], e["order_id"], e["number"]) for e in reply.body["events"]]
                self.events += found
                address = reply.body["next"]
                is_last = is_last and not found
        finally:
            await http.close()

    async def _ask(self, http: Http, address: str) -> Reply | None:
        replica = self._chance.choice(self._replicas)
        try:
            reply = await http.send(
                "GET", f"{replica.url}{address}", headers=self._credentials.warehouse(), patience_s=WAIT_S + 3
            )
        except (NotReached, NoAnswer):
            return None
        if reply.status == 200:
            return reply
        if reply.status < 500:
            self.refusals.append(f"{address}: {reply.body}")
        return None
