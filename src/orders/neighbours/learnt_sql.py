"""The table `neighbours`: what the replicas learnt of each neighbour, and which replica has the turn to call it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.neighbours.concurrency import Learnt
from orders.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Key:
    """A neighbour (`catalog` or `cart`) and a digest of its address. At another address everything is learnt anew."""

    name: str
    address: str


NAMES = {"catalog": "The Product Catalog Service", "cart": "The Shopping Cart Service"}
"""Names of the neighbours in messages for people."""


def digest(url: str) -> str:
    """A digest that stands for an address, which may hold a password."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def read_learnt(connection: Connection, keys: Sequence[Key]) -> dict[Key, Learnt]:
    """What is known of these neighbours. Neighbours that were never called are left out."""
    with connection.cursor() as cursor:
        cursor.execute(_READ, ([k.name for k in keys], [k.address for k in keys]))
        return {Key(name, address): Learnt(*rest) for name, address, *rest in cursor}


def make_rows(connection: Connection, keys: Sequence[Key]) -> None:
    """Insert the rows of neighbours that were never called. Safe to repeat."""
    with connection.cursor() as cursor:
        cursor.execute(_MAKE, ([k.name for k in keys], [k.address for k in keys]))


_READ = """
    SELECT name, address, concurrency, is_proven, wrong_count,
        greatest(0, extract(epoch FROM probe_at - clock_timestamp()))::float8
    FROM neighbours JOIN unnest(%s::text[], %s::text[]) k(name, address) USING (name, address)
"""

_MAKE = "INSERT INTO neighbours (name, address) SELECT * FROM unnest(%s::text[], %s::text[]) ON CONFLICT DO NOTHING"


def keep_learnt(connection: Connection, key: Key, learnt: Learnt, known: Learnt) -> bool:
    """Save what was learnt since `known` was read. Returns False, and saves nothing, if another replica learnt
    otherwise.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE neighbours SET concurrency = %(limit)s, is_proven = %(is_proven)s, wrong_count = %(wrong)s,
                   probe_at = clock_timestamp() + %(probe_in_s)s * interval '1 s', learnt_at = clock_timestamp()
               WHERE name = %(name)s AND address = %(address)s
                   AND (is_proven, wrong_count) = (%(was_proven)s, %(was_wrong)s)""",
            {
                "limit": learnt.limit,
                "is_proven": learnt.is_proven,
                "wrong": learnt.wrong_count,
                "probe_in_s": learnt.probe_in_s,
                "name": key.name,
                "address": key.address,
                "was_proven": known.is_proven,
                "was_wrong": known.wrong_count,
            },
        )
        return cursor.rowcount == 1


def take_turn(connection: Connection, key: Key, holder: UUID, lease_s: float, wanted_s: float) -> bool:
    """Take the turn, or keep it, for `lease_s`. Returns False if another replica has it, and tells that one that we
    wait.

    Inserts the row if it is missing, as in a restored database.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE neighbours SET
                   held_until = CASE WHEN holder = %(me)s OR holder IS NULL OR held_until < clock_timestamp()
                       THEN clock_timestamp() + %(lease)s * interval '1 s' ELSE held_until END,
                   wanted_until = CASE WHEN holder = %(me)s OR holder IS NULL OR held_until < clock_timestamp()
                       THEN wanted_until ELSE clock_timestamp() + %(wanted)s * interval '1 s' END,
                   holder = CASE WHEN holder = %(me)s OR holder IS NULL OR held_until < clock_timestamp()
                       THEN %(me)s ELSE holder END
               WHERE name = %(name)s AND address = %(address)s RETURNING holder = %(me)s""",
            {
                "me": str(holder),
                "lease": lease_s,
                "wanted": wanted_s,
                "name": key.name,
                "address": key.address,
            },
        )
        row = cursor.fetchone()
    if row is None:
        make_rows(connection, [key])
    return bool(row and row[0])


def pass_turn(connection: Connection, key: Key, holder: UUID, *, only_if_wanted: bool) -> bool:
    """End the turn. With `only_if_wanted`, end it only if another replica waits. Returns whether it has ended."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE neighbours SET holder = NULL, held_until = NULL
               WHERE name = %s AND address = %s AND holder = %s
                   AND (NOT %s OR wanted_until > clock_timestamp())""",
            (key.name, key.address, str(holder), only_if_wanted),
        )
        return cursor.rowcount == 1
