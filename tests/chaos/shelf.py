"""The products of a run."""

import random
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.http import Http

HOT, CONTESTED, COLD, SCARCE = 4, 3, 200, 40


@dataclass
class Shelf:
    """The products, and the stock of each at the beginning."""

    initial: dict[int, int]
    hot: list[int]
    contested: list[int]
    """Products whose stock is changed from outside while they are ordered."""

    cold: list[int]
    scarce: list[int]
    put_in: Counter[int] = field(default_factory=Counter)
    """Units that came from outside, per product."""

    restock_count: int = 0
    edit_count: int = 0
    sold_out: set[int] = field(default_factory=set)
    """Scarce products that a shopper has found empty."""

    def choose(self, chance: random.Random) -> dict[int, int]:
        """One to three products with a quantity of each: often a hot one, now and then one that runs out."""
        lines: dict[int, int] = {}
        for _ in range(chance.choice((1, 1, 2, 3))):
            kind = chance.choices((self.hot, self.contested, self.cold, self.scarce), (25, 15, 52, 8))[0]
            lines[chance.choice(kind)] = chance.randint(1, 3)
        return lines

    def found_empty(self, product_id: int) -> None:
        """Note that a shopper was told that there is not enough of a product."""
        if product_id in self.scarce:
            self.sold_out.add(product_id)


async def fill_shelf(http: Http, catalog_url: str, chance: random.Random) -> Shelf:
    """Give the catalog its products."""
    plenty, some, few = 1_000_000, 20_000, [chance.randint(10, 60) for _ in range(SCARCE)]
    stocks = [*[plenty] * (HOT + CONTESTED), *[some] * COLD, *few]
    products = [{"name": f"Volume {n}", "price": 10, "quantity": stock} for n, stock in enumerate(stocks, 1)]
    reply = await http.send("POST", f"{catalog_url}/products", products, patience_s=30)
    initial = {int(product["id"]): int(product["quantity"]) for product in reply.body["products"]}
    ids = iter(initial)
    hot, contested, cold, scarce = ([next(ids) for _ in range(n)] for n in (HOT, CONTESTED, COLD, SCARCE))
    return Shelf(initial, hot, contested, cold, scarce)
