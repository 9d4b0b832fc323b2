"""What the shoppers ask with: the storefront's API key, which is rotated all the time, or a token of their own."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg2

from orders.access.granting import Caller, Grant
from orders.access.keys import id_of
from orders.access.keys_sql import create_key, rotate_key
from orders.postgres.database import DatabaseUnavailable, opened
from orders.principal import PRESETS
from tests.made_up_issuer import AUDIENCE, ISSUER, RSA, customer, public, serving

ROTATE_S = 7.0
"""Pause between two rotations of the storefront's key."""

KEEP_OLD = timedelta(minutes=2)
"""Time for which the old key is still good: longer than the database is ever away."""

TOKEN_S = 3600
"""Time for which a token is good, in seconds: longer than a run."""

_NEWEST = "SELECT id FROM access_keys WHERE name = 'storefront' ORDER BY created_at DESC LIMIT 1"


class Credentials:
    """Keys and tokens. Keys are made in the database, as the command line makes them."""

    def __init__(self, dsn: str) -> None:
        self.rotations = 0
        self._dsn = dsn
        with opened(dsn) as connection:
            presets = ("storefront", "warehouse")
            grants = [Grant(name, PRESETS[name]) for name in presets]
            self._storefront, self._warehouse = (create_key(connection, g, Caller("cli"))[0] for g in grants)
        self._owner = f"key:{id_of(self._storefront)}"

    @property
    def storefront_owner(self) -> str:
        """Whose the Idempotency-Keys of the storefront are, whichever key it has by now."""
        return self._owner

    def storefront(self) -> dict[str, str]:
        """The headers of the shop's own pages."""
        return _bearer(self._storefront)

    def warehouse(self) -> dict[str, str]:
        """The headers of the warehouse, which moves orders."""
        return _bearer(self._warehouse)

    def token(self, customer_id: int) -> dict[str, str]:
        """The headers of a customer."""
        now = int(time.time())
        return _bearer(customer(customer_id=customer_id, exp=now + TOKEN_S, iat=now))

    async def rotate_forever(self) -> None:
        """Rotate the storefront's key now and then. Where no answer comes, the next rotation is of the newest key."""
        while True:
            await asyncio.sleep(ROTATE_S)
            try:
                self._storefront = await asyncio.to_thread(self._rotate)
                self.rotations += 1
            except (psycopg2.Error, DatabaseUnavailable):
                continue

    def _rotate(self) -> str:
        with opened(self._dsn) as connection:
            with connection.cursor() as cursor:
                cursor.execute(_NEWEST)
                ((key_id,),) = cursor.fetchall()
            rotated = rotate_key(connection, key_id, KEEP_OLD, Caller("cli"))
            assert rotated
            return rotated[0]


@contextmanager
def settings_of_access() -> Iterator[dict[str, str]]:
    """The settings of a closed service, and an issuer of tokens that runs meanwhile."""
    with serving() as issuer:
        issuer.say("/keys", public(RSA))
        yield {
            "ORDERS_ACCESS": "closed",
            "ORDERS_JWT_ISSUER": ISSUER,
            "ORDERS_JWT_AUDIENCE": AUDIENCE,
            "ORDERS_JWT_JWKS_URL": f"{issuer.url}/keys",
            "ORDERS_CONCURRENCY": "500",
        }


def _bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}
