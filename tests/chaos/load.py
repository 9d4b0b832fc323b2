"""The load: shoppers arrive at a set rate, whatever becomes of earlier ones, and remember the answers that they got.

Each shopper is another customer and wants one order. So an order that should not exist can be told by its customer.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.credentials import Credentials
from tests.chaos.http import Http, NoAnswer, NotReached, Reply
from tests.chaos.processes import Process
from tests.chaos.shelf import Shelf

FIRST_CUSTOMER = 1000
NOT_REACHED = "not reached"
NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST and its answer. `code` is the problem's code, "placed", NOT_REACHED or NO_ANSWER. Times are seconds
    since 1970.
    """

    began_at: float
    ended_at: float
    code: str
    status: int | None = None
    order_id: str | None = None
    is_replayed: bool = False


@dataclass(slots=True)
class Shopper:
    """A shopper: what they want, and all answers that they got. A cart is filled with `lines` (product to quantity)."""

    customer_id: int
    lines: dict[int, int]
    from_cart: bool
    key: str
    """The Idempotency-Key of every POST, or empty for none."""

    has_token: bool = False
    """Whether they ask with a token of their own. The others ask with the storefront's key."""

    stored_key: str = ""
    """The key as the database has it, with its owner."""

    attempts: list[Attempt] = field(default_factory=list)
    cancellations: list[str] = field(default_factory=list)
    """The answers to `PUT {"status": "Cancelled"}`: an order's status, a problem's code, NOT_REACHED or NO_ANSWER."""

    peeks: list[str] = field(default_factory=list)
    """The answers to reading somebody else's order: a problem's code, "seen", NOT_REACHED or NO_ANSWER."""

    cart_is_certain: bool = True
    """Whether the cart holds exactly `lines`. Filling it can't be repeated if there was no answer."""

    @property
    def placed_id(self) -> str | None:
        """The order that a 201 named, or None."""
        return next((attempt.order_id for attempt in self.attempts if attempt.order_id), None)

    @property
    def is_repeatable(self) -> bool:
        """Whether another POST can't order twice, whatever becomes of this one."""
        return bool(self.key) or self.from_cart

    @property
    def may_go_on(self) -> bool:
        """Whether another POST can't order twice, after the answers so far."""
        return self.is_repeatable or self.attempts[-1].code != NO_ANSWER

    @property
    def is_answered(self) -> bool:
        """Whether the last answer was a decision."""
        last = self.attempts[-1]
        return last.status in (201, 400, 404, 422) or (last.status == 500 and bool(self.key))


class Load:
    """An open-loop load: `rate` shoppers arrive per second. `patience_s`: timeout of a shopper for an answer.

    The same seed gives the same arrivals and wishes. What shoppers do later depends on what happens to them.
    """

    def __init__(
        self,
        replicas: Sequence[Process],
        carts_url: str,
        credentials: Credentials,
        shelf: Shelf,
        seed: float,
        rate: float,
        patience_s: float,
    ) -> None:
        self.shoppers: list[Shopper] = []
        self.answers: Counter[str] = Counter()
        """Number of POSTs answered with each code."""

        self.placed_count = 0
        """Number of shoppers who know of their order."""

        self._replicas = replicas
        self._carts_url = carts_url
        self._credentials = credentials
        self._shelf = shelf
        self._wishes = random.Random(seed)
        self._chance = random.Random(self._wishes.random())
        self._rate = rate
        self._patience_s = patience_s
        self._http = Http("shoppers")
        self._is_closed = False

    async def run(self) -> None:
        """Let shoppers arrive until the doors close, and return when the last has left. Shoppers who are late, because
        this process was busy, still come.
        """
        now = asyncio.get_running_loop().time
        arrives_at = now()
        async with asyncio.TaskGroup() as shopping:
            while not self._is_closed:
                arrives_at += self._wishes.expovariate(self._rate)
                await asyncio.sleep(max(0.0, arrives_at - now()))
                shopper = self._next_shopper()
                self.shoppers.append(shopper)
                shopping.create_task(self._shop(shopper))
        await self._http.close()

    def close_doors(self) -> None:
        """Let no more shoppers arrive, and let those who are here send nothing more. Requests under way are still
        answered.
        """
        self._is_closed = True

    def _next_shopper(self) -> Shopper:
        customer_id = FIRST_CUSTOMER + len(self.shoppers)
        key = f"key-{customer_id}" if self._wishes.random() < 0.6 else ""
        shopper = Shopper(customer_id, self._shelf.choose(self._wishes), self._wishes.random() < 0.3, key)
        shopper.has_token = self._wishes.random() < 0.4
        owner = f"customer:{customer_id}" if shopper.has_token else self._credentials.storefront_owner
        shopper.stored_key = f"{owner} place {key}"
        return shopper

    async def _shop(self, shopper: Shopper) -> None:
        if shopper.from_cart and not await self._fill_cart(shopper):
            return
        await self._order(shopper)
        if shopper.placed_id and self._chance.random() < 0.1:
            await self._cancel(shopper, shopper.placed_id)
        if shopper.has_token and self._chance.random() < 0.2:
            await self._peek(shopper)

    async def _fill_cart(self, shopper: Shopper) -> bool:
        """Fill the shopper's cart. Returns whether something is in it."""
        items = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in shopper.lines.items()]
        async for _ in self._tries():
            try:
                await self._http.send("POST", f"{self._carts_url}/carts/{shopper.customer_id}", items)
            except NotReached:
                continue
            except NoAnswer:
                shopper.cart_is_certain = False
            else:
                return True
        return False

    async def _order(self, shopper: Shopper) -> None:
        """POST until there is a decision, or the shopper's patience ends. Some click twice, and some come back to see
        the answer again.
        """
        clicks = 2 if shopper.is_repeatable and self._chance.random() < 0.1 else 1
        await asyncio.gather(*(self._post(shopper) for _ in range(clicks)))
        async for _ in self._tries():
            if shopper.is_answered or not shopper.may_go_on:
                break
            await self._post(shopper)
        if shopper.is_repeatable and self._chance.random() < 0.1 and not self._is_closed:
            await self._post(shopper)

    async def _post(self, shopper: Shopper) -> None:
        items = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in shopper.lines.items()]
        body = None if shopper.from_cart else {"items": items}
        patience_s = self._chance.uniform(0.02, 0.5) if self._chance.random() < 0.03 else self._patience_s
        began_at = time.time()
        try:
            path, headers = f"/orders/{shopper.customer_id}", self._headers_of(shopper)
            if shopper.key:
                headers["Idempotency-Key"] = shopper.key
            reply = await self._ask("POST", path, body, patience_s, headers)
        except NotReached:
            attempt = Attempt(began_at, time.time(), NOT_REACHED)
        except NoAnswer:
            attempt = Attempt(began_at, time.time(), NO_ANSWER)
        else:
            attempt = _understand(reply, began_at)
            self._notice_shortages(reply)
        self.placed_count += bool(attempt.order_id) and not shopper.placed_id
        shopper.attempts.append(attempt)
        self.answers["repeated" if attempt.is_replayed else attempt.code] += 1

    def _headers_of(self, shopper: Shopper) -> dict[str, str]:
        """The shopper's credential."""
        mine = self._credentials
        return mine.token(shopper.customer_id) if shopper.has_token else mine.storefront()

    async def _peek(self, shopper: Shopper) -> None:
        """Try to read the order of somebody else."""
        others = [other.placed_id for other in self.shoppers[-50:] if other.placed_id and other is not shopper]
        if not others:
            return
        path = f"/orders/{self._chance.choice(others)}"
        try:
            reply = await self._ask("GET", path, None, self._patience_s, self._headers_of(shopper))
        except NotReached:
            shopper.peeks.append(NOT_REACHED)
        except NoAnswer:
            shopper.peeks.append(NO_ANSWER)
        else:
            shopper.peeks.append("seen" if reply.status == 200 else _code(reply))

    def _notice_shortages(self, reply: Reply) -> None:
        if reply.status == 400:
            for error in reply.body.get("errors", []):
                self._shelf.found_empty(error["product_id"])

    async def _cancel(self, shopper: Shopper, order_id: str) -> None:
        """Cancel the order until there is an answer. Some do it from two places at once."""
        async for _ in self._tries():
            clicks = 2 if self._chance.random() < 0.2 else 1
            answers = await asyncio.gather(*(self._move(order_id, "Cancelled") for _ in range(clicks)))
            shopper.cancellations += answers
            if "Cancelled" in answers:
                return

    async def _tries(self) -> AsyncIterator[None]:
        """Five tries, each after a longer pause, 15 s in all: longer than recovery from a dead replica takes."""
        for pause_s in (0.3, 1, 2.5, 5, 6):
            await asyncio.sleep(pause_s * self._chance.uniform(0.5, 1.5))
            if self._is_closed:
                return
            yield

    async def _move(self, order_id: str, status: str) -> str:
        try:
            headers = self._credentials.warehouse()
            reply = await self._ask("PUT", f"/orders/{order_id}", {"status": status}, self._patience_s, headers)
        except NotReached:
            return NOT_REACHED
        except NoAnswer:
            return NO_ANSWER
        return str(reply.body["status"]) if reply.status == 200 else _code(reply)

    async def _ask(self, method: str, path: str, body: object, patience_s: float, headers: Mapping[str, str]) -> Reply:
        """Send a request to some replica. If that one can't be reached, try the next, as a load balancer does."""
        for replica in self._chance.sample(self._replicas, len(self._replicas)):
            try:
                url = f"{replica.url}{path}"
                return await self._http.send(method, url, body, patience_s=patience_s, headers=headers)
            except NotReached:
                continue
        raise NotReached


def _understand(reply: Reply, began_at: float) -> Attempt:
    if reply.status == 201:
        order_id = str(reply.body["id"])
        return Attempt(began_at, time.time(), "placed", 201, order_id, reply.is_replayed)
    return Attempt(began_at, time.time(), _code(reply), reply.status, None, reply.is_replayed)


def _code(reply: Reply) -> str:
    return str(reply.body.get("code")) if isinstance(reply.body, dict) else f"{reply.status} without a problem document"
