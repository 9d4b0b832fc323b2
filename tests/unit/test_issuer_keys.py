"""When the issuer is asked for its keys, who waits for it, and how long keys go on without. The clock is the test's."""

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from orders.access.claims import ClaimRules
from orders.access.issuer import IssuerAway
from orders.access.issuer_keys import KEEP_S, NO_KEYS_S, REFRESH_S, UNKNOWN_KEY_S, IssuerKeys
from orders.access.jwks import KeySet, read_key_set
from orders.access.tokens import TokenRules, Tokens
from orders.errors import OrderError
from orders.principal import Principal
from tests.made_up_issuer import AUDIENCE, EC, ED, ISSUER, NOW, OTHER_RSA, RSA, claims, customer, public, signed

ALGORITHMS = frozenset({"RS256"})
REMEMBERED_S = 60


class Issuer:
    """An issuer with some keys. `is_away`: it fails. While `gate` is closed, its answers wait."""

    name = ISSUER

    def __init__(self) -> None:
        self.keys: tuple[Any, ...] = (RSA,)
        self.is_away = False
        self.asked_count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def key_set(self, _: object) -> KeySet:
        self.asked_count += 1
        await self.gate.wait()
        if self.is_away:
            raise IssuerAway("nobody is at home")
        return read_key_set(public(*self.keys), ALGORITHMS)


class Shop:
    """The tokens of this issuer, and a clock."""

    def __init__(self) -> None:
        self.now = float(NOW)
        self.issuer = Issuer()
        self.keys = IssuerKeys(self.issuer, lambda: self.now)  # type: ignore[arg-type]  # a fake at the port
        self.keys.connect(object())  # type: ignore[arg-type]  # its client is never used
        rules = TokenRules(ISSUER, AUDIENCE, ALGORITHMS, ClaimRules("customer_id", frozenset()))
        self.tokens = Tokens(rules, self.keys, lambda: self.now)

    async def answer(self, token: str) -> str:
        """What becomes of a request with this token."""
        found = self.tokens.find(token)
        if found is not None and not isinstance(found, Principal | OrderError):
            found = await found
        return found.name if isinstance(found, Principal) else found.code.name if found else "CREDENTIAL_INVALID"


@pytest.fixture
async def shop() -> Shop:
    """A shop whose issuer has been asked once."""
    shop = Shop()
    await shop.keys.refresh_once()
    assert shop.issuer.asked_count == 1
    return shop


def lasting() -> str:
    """A token that is valid for two days."""
    return customer(exp=NOW + 2 * 86400)


NEW = signed(claims(exp=NOW + 2 * 86400), key=OTHER_RSA)
"""A token by a key that the issuer does not have at first."""


def by_random_key(number: int) -> str:
    return signed(claims(), {"alg": "RS256", "kid": f"random {number}"})


async def turns(count: int = 20) -> None:
    """Let the other tasks go on until they wait."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_before_the_issuer_was_asked_a_request_asks_it_and_all_others_wait_for_the_same_answer() -> None:
    shop = Shop()
    shop.issuer.gate.clear()
    requests = [asyncio.create_task(shop.answer(customer(sub=f"anna{number}"))) for number in range(100)]
    await turns()
    assert shop.issuer.asked_count == 1
    shop.issuer.gate.set()
    assert set(await asyncio.gather(*requests)) == {"customer:42"}
    assert shop.issuer.asked_count == 1


async def test_nothing_is_fetched_before_there_is_a_client() -> None:
    shop = Shop()
    shop.keys = shop.tokens.keys = IssuerKeys(shop.issuer)  # type: ignore[arg-type]  # a fake at the port
    await shop.keys.refresh_once()
    assert await shop.answer(customer()) == "TOKENS_UNCHECKED"
    assert shop.issuer.asked_count == 0


async def test_a_new_key_is_found_at_the_first_token_that_names_it(shop: Shop) -> None:
    shop.issuer.keys = (RSA, OTHER_RSA)
    shop.now += UNKNOWN_KEY_S
    assert await shop.answer(NEW) == "customer:42"
    assert shop.issuer.asked_count == 2


async def test_a_flood_of_unknown_keys_causes_one_fetch_in_half_a_minute_and_holds_up_nobody_else(shop: Shop) -> None:
    shop.now += UNKNOWN_KEY_S
    shop.issuer.gate.clear()
    flood = [asyncio.create_task(shop.answer(by_random_key(number))) for number in range(200)]
    await turns()
    assert isinstance(shop.tokens.find(customer()), Principal)  # at once, while the flood waits
    shop.issuer.gate.set()
    assert set(await asyncio.gather(*flood)) == {"CREDENTIAL_INVALID"}
    assert shop.issuer.asked_count == 2
    shop.issuer.gate.clear()  # whoever waits for a fetch now waits forever
    shop.now += UNKNOWN_KEY_S - 1
    for number in range(200):
        assert await shop.answer(by_random_key(number)) == "CREDENTIAL_INVALID"
    assert shop.issuer.asked_count == 2


async def test_a_request_that_is_given_up_leaves_the_fetch_to_the_others(shop: Shop) -> None:
    shop.now += UNKNOWN_KEY_S
    shop.issuer.keys = (RSA, OTHER_RSA)
    shop.issuer.gate.clear()
    first, second = (asyncio.create_task(shop.answer(NEW)) for _ in range(2))
    await turns()
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    shop.issuer.gate.set()
    assert await second == "customer:42"
    assert shop.issuer.asked_count == 2


async def test_keys_are_fetched_in_the_background_before_they_are_ten_minutes_old(shop: Shop) -> None:
    shop.now += REFRESH_S - 1
    await shop.keys.refresh_once()
    assert shop.issuer.asked_count == 1
    shop.now += 1
    await shop.keys.refresh_once()
    assert shop.issuer.asked_count == 2
    assert REFRESH_S + 60 < 600


async def test_no_request_waits_for_keys_that_are_only_old(shop: Shop) -> None:
    shop.now += 3600
    assert isinstance(shop.tokens.find(lasting()), Principal)
    assert shop.issuer.asked_count == 1


async def test_a_key_that_the_issuer_took_back_is_no_longer_believed(shop: Shop) -> None:
    shop.issuer.keys = (OTHER_RSA,)
    assert await shop.answer(lasting()) == "customer:42"
    shop.now += REFRESH_S
    await shop.keys.refresh_once()
    assert await shop.answer(lasting()) == "CREDENTIAL_INVALID"
    assert await shop.answer(NEW) == "customer:42"


async def test_old_keys_go_on_for_a_day_while_the_issuer_is_away(shop: Shop) -> None:
    shop.issuer.is_away = True
    shop.now += KEEP_S - REMEMBERED_S - 1
    await shop.keys.refresh_once()
    assert await shop.answer(lasting()) == "customer:42"
    shop.now += REMEMBERED_S + 1
    assert await shop.answer(lasting()) == "TOKENS_UNCHECKED"
    shop.issuer.is_away = False
    shop.now += NO_KEYS_S
    assert await shop.answer(lasting()) == "customer:42"


async def test_an_issuer_that_is_away_is_asked_at_most_every_half_minute_or_every_five_seconds(shop: Shop) -> None:
    async def asked_within(seconds: int) -> int:
        before = shop.issuer.asked_count
        for _ in range(seconds):
            shop.now += 1
            await shop.keys.refresh_once()
            await shop.answer(by_random_key(int(shop.now)))
        return shop.issuer.asked_count - before

    shop.issuer.is_away = True
    shop.now += REFRESH_S
    assert await asked_within(300) == 300 / UNKNOWN_KEY_S
    shop.now += KEEP_S
    assert await asked_within(300) == 300 / NO_KEYS_S


async def test_without_keys_no_request_waits_longer_than_the_fetch_that_is_under_way() -> None:
    shop = Shop()
    shop.issuer.is_away = True
    assert await shop.answer(customer()) == "TOKENS_UNCHECKED"
    shop.issuer.gate.clear()  # whoever waits for a fetch now waits forever
    shop.now += NO_KEYS_S - 1
    assert await shop.answer(customer()) == "TOKENS_UNCHECKED"


async def test_an_issuer_without_any_usable_key_is_believed_and_leaves_no_key(shop: Shop) -> None:
    shop.issuer.keys = (EC,)
    shop.now += REFRESH_S
    await shop.keys.refresh_once()
    assert await shop.answer(lasting()) == "TOKENS_UNCHECKED"
    shop.issuer.keys = (RSA,)
    shop.now += NO_KEYS_S
    await shop.keys.refresh_once()
    assert isinstance(shop.tokens.find(lasting()), Principal)


async def test_what_became_of_the_keys_is_told_once(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def fetch_again() -> None:
        shop.now += REFRESH_S
        await shop.keys.refresh_once()

    for is_away in (True, True, True, False, False):
        shop.issuer.is_away = is_away
        await fetch_again()
    shop.issuer.keys = (RSA, OTHER_RSA, EC, ED)
    await fetch_again()
    await fetch_again()
    shop.issuer.keys = ()
    await fetch_again()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"The keys of {ISSUER} can't be fetched: nobody is at home."),
        ("INFO", f"{ISSUER} has usable keys: 1."),
        (
            "INFO",
            f"{ISSUER} has usable keys: 2. Ignored: 2 (of an algorithm that ORDERS_JWT_ALGORITHMS does not name).",
        ),
        ("WARNING", f"{ISSUER} has no usable key."),
    ]
