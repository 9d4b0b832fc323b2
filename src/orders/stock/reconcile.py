"""Compares each product's stock in the catalog with our record of it, and carries out what a person decides."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from uuid_utils.compat import uuid7

from orders.neighbours.catalog import Catalog, Product
from orders.neighbours.reply import MalformedReply, NoAnswer, NotSent
from orders.order.audit_sql import AuditEntry
from orders.order.model import Author
from orders.postgres.database import Database
from orders.settings import Settings
from orders.stock import claim_sql, record_sql
from orders.stock.plan import Adjustment
from orders.stock.record_sql import Book
from orders.stock.settle_sql import Settlement, settle
from orders.stock.write import DID_LAND, DID_NOT, Fate, jittered, write_stock

AT_ONCE = 500
LOOKS = 20
"""Maximum number of looks at a product whose stock is written while it is compared."""

LOOK_BACK = 1000
"""Number of our newest PUTs among which an old figure is looked for, that someone may have written back."""


class Undecided(Exception):
    """A person's decision was not carried out. The message says why."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A product's stock by the record and by the catalog (None: unknown), what to say about them, and what a person can
    do.
    """

    product_id: int
    recorded: int | None
    found: int | None
    is_well: bool
    sentence: str
    advice: Sequence[str] = field(default=())


class Reconciliation:
    """Compares without stopping writers: a product that is written meanwhile is looked at again."""

    def __init__(self, database: Database, catalog: Catalog, settings: Settings, author: Author = Author()) -> None:  # noqa: B008
        """`author`: whoever decides, for the audit."""
        self._database = database
        self._catalog = catalog
        self._settings = settings
        self._author = author
        self._now = asyncio.get_running_loop().time

    async def compare(self, products: Sequence[int] = ()) -> AsyncIterator[Comparison]:
        """Compare these products, or all whose stock this service has ever written."""
        page = products or await self._recorded(above=0)
        while page:
            for comparison in await self._compare(page):
                yield comparison
            page = () if products else await self._recorded(above=page[-1])

    async def _recorded(self, above: int) -> list[int]:
        return await self._database.run(lambda c: record_sql.recorded_products(c, above, AT_ONCE))

    async def _compare(self, products: Sequence[int]) -> list[Comparison]:
        left, done = set(products), dict[int, Comparison]()
        for look in range(LOOKS):
            await asyncio.sleep(jittered(0.3) if look else 0)
            done.update(await self._look(left))
            if not (left := left - done.keys()):
                break
        done.update({p: Comparison(p, None, None, False, "is being written all the time; ask again.") for p in left})
        return [done[product_id] for product_id in sorted(done)]

    async def _look(self, products: Iterable[int]) -> dict[int, Comparison]:
        """Comparisons of the products whose stock was not written while we looked."""
        asked = list(products)
        before = await self._books(asked)
        stocks = dict(zip(asked, await asyncio.gather(*map(self._stock, asked)), strict=True))
        after = await self._books(asked)
        still = {p: after.get(p) for p in asked if before.get(p) == after.get(p)}
        return {p: await self._judge(p, book, stocks[p]) for p, book in still.items() if not (book and book.is_busy)}

    async def _judge(self, product_id: int, book: Book | None, found: int | str | None) -> Comparison:
        if book is None:
            stock = found if isinstance(found, int) else None
            return Comparison(product_id, None, stock, True, "was never written by this service.")
        if isinstance(found, str):
            return Comparison(product_id, book.figure, None, False, f"can't be compared: {found}.")
        said = _said(book, found)
        if found is not None and not said and found != book.figure:
            then = await self._database.run(lambda c: record_sql.latest_with_stock(c, product_id, found, LOOK_BACK))
            said = [_difference(book, found, then)]
        if not said:
            return Comparison(product_id, book.figure, found, True, f"agrees: {found}.")
        return Comparison(product_id, book.figure, found, False, " ".join(said), _advice(book, found))

    async def _books(self, products: Sequence[int]) -> dict[int, Book]:
        return await self._database.run(lambda c: record_sql.books(c, products))

    async def _stock(self, product_id: int) -> int | str | None:
        """The catalog's figure, or None if it does not know the product, or a text that says why it
        could not be asked.
        """
        try:
            product = await self._catalog.read(product_id)
        except (NotSent, NoAnswer, MalformedReply) as error:
            return str(error)
        return product.quantity if product else None

    # A person's decisions ---------------------------------------------------------------------------------------

    async def accept(self, product_id: int) -> str:
        """The catalog is right: record its figure. Returns what was done. Raises Undecided."""

        async def work(batch: UUID, _: float, product: Product, book: Book) -> str:
            if product.quantity == book.figure and not book.doubts:
                return f"Product {product_id}: the record says {book.figure} already."
            stock = product.quantity
            audit = self._audit("stock_accepted", product_id, book.figure, stock)
            if not await self._database.run(
                lambda c: record_sql.accept(c, batch, product_id, book.figure, stock, audit)
            ):
                raise Undecided(f"Product {product_id}: this took too long; nothing was recorded.")
            return f"Product {product_id}: {stock} is recorded (it was {book.figure})."

        return await self._claimed(product_id, work)

    async def restore(self, product_id: int) -> str:
        """The record is right: write its figure to the catalog. Returns what was done. Raises Undecided."""

        async def work(batch: UUID, lease_until: float, product: Product, book: Book) -> str:
            if book.figure is None:
                raise Undecided(f"Product {product_id}: the record has no figure; the catalog had lost the product.")
            return await self._correct("stock_restored", batch, lease_until, product, book.figure)

        return await self._claimed(product_id, work)

    async def set(self, product_id: int, found: int, counted: int) -> str:
        """Neither is right: write the counted stock. Returns what was done. Raises Undecided.

        Only done while the catalog still says `found`: a repetition must not undo what was sold since.
        """

        async def work(batch: UUID, lease_until: float, product: Product, _: Book) -> str:
            if product.quantity != found:
                raise Undecided(
                    f"Product {product_id}: the catalog says {product.quantity}, not {found}; nothing was written."
                )
            return await self._correct("stock_set", batch, lease_until, product, counted)

        return await self._claimed(product_id, work)

    async def _claimed(self, product_id: int, work: Callable[[UUID, float, Product, Book], Awaitable[str]]) -> str:
        """Do `work` while nobody else writes the product's stock."""
        batch = uuid7()
        lease_s, give_up_at = self._settings.orders_lease_s, self._now() + self._settings.orders_request_deadline_s
        lease_until = self._now() + lease_s
        while (
            product_id
            not in (
                await self._database.run(lambda c: claim_sql.claim(c, batch, lease_s, [product_id], {}, {}))
            ).products
        ):
            if self._now() > give_up_at:
                raise Undecided(f"Product {product_id}: its stock is being written or in doubt; ask again.")
            await asyncio.sleep(jittered(0.1))
            lease_until = self._now() + lease_s
        try:
            return await work(batch, lease_until, await self._product(product_id), await self._book(product_id))
        finally:
            await self._database.run(lambda c: claim_sql.release(c, batch, [product_id], ()))

    async def _product(self, product_id: int) -> Product:
        try:
            product = await self._catalog.read(product_id)
        except (NotSent, NoAnswer, MalformedReply) as error:
            raise Undecided(f"Product {product_id}: {error}.") from None
        if product is None:
            raise Undecided(f"Product {product_id}: the catalog does not know it.")
        return product

    async def _book(self, product_id: int) -> Book:
        book = (await self._books([product_id])).get(product_id)
        if book is None:
            raise Undecided(f"Product {product_id}: was never written by this service.")
        return book

    async def _correct(self, action: str, batch: UUID, lease_until: float, product: Product, stock: int) -> str:
        """Run INTEND, WRITE and SETTLE like a batch without orders. If we die in between, recovery ends it.

        The audit has what is intended: whether the PUT landed is in the record.
        """
        if product.quantity == stock:
            return f"Product {product.id}: the catalog says {stock} already."
        change = Adjustment(product.quantity, stock)
        horizon_s = self._settings.orders_write_horizon_s
        audit = self._audit(action, product.id, change.before, change.after)
        if not await self._database.run(
            lambda c: record_sql.intend_correction(c, batch, horizon_s, product.id, change, audit)
        ):
            raise Undecided(f"Product {product.id}: this took too long; nothing was written.")
        give_up_at = self._now() + self._settings.orders_request_deadline_s
        fate = await write_stock(self._catalog, product, change, min(give_up_at, lease_until))
        await self._database.run(lambda c: settle(c, batch, horizon_s, _settlement(product.id, fate)))
        if fate is Fate.DOUBT:
            raise Undecided(f"Product {product.id}: the catalog did not answer; recovery finds out, look again later.")
        if fate in DID_NOT:
            raise Undecided(f"Product {product.id}: the catalog did not take {stock}.")
        return f"Product {product.id}: {stock} is written (it was {change.before})."

    def _audit(self, action: str, product_id: int, before: int | None, after: int) -> AuditEntry:
        """The entry for a decision about a product's stock."""
        author, was, now = self._author, {"stock": before}, {"stock": after}
        return AuditEntry(author.actor, action, f"product:{product_id}", was, now, author.address, author.request_id)


def _settlement(product_id: int, fate: Fate) -> Settlement:
    this = (product_id,)
    return Settlement(
        landed=this if fate in DID_LAND else (),
        quiet=this if fate is Fate.LANDED_UNACKNOWLEDGED else (),
        refused=this if fate in DID_NOT else (),
        hand_over=fate is Fate.DOUBT,
    )


def _said(book: Book, found: int | None) -> list[str]:
    said = []
    if book.ours != book.ordered:
        said.append(
            f"By its orders the stock was moved by {book.ordered:+}, by the record by {book.ours:+}: "
            "this is a defect of this service, please report it."
        )
    said += [
        f"At {doubt.at} nobody could tell what became of a PUT of {doubt.after} over {doubt.before}: somebody else "
        f"wrote at the same moment (the catalog said {doubt.found}). Units may be missing, none were oversold."
        for doubt in book.doubts
    ]
    if found is None and (book.figure is not None or book.due):
        said.append(f"The catalog does not know it any more; the record says {book.figure}, {book.due} are due back.")
    return said


def _counted(book: Book, found: int | None) -> str:
    return f"The catalog says {found}, the record {book.figure}."


def _difference(book: Book, found: int, then: str | None) -> str:
    assert book.figure is not None
    by = found - book.figure
    if then is not None:
        return (
            f"{_counted(book, found)} That is what it was before our PUT of {then}: somebody wrote an old figure back, "
            f"and {abs(by)} units are {'offered that are sold' if by > 0 else 'missing that came back'}."
        )
    how = "restocked, or corrected" if by > 0 else "sold elsewhere, or corrected"
    return f"{_counted(book, found)} Since {book.since} somebody else changed it by {by:+}: {how}."


def _advice(book: Book, found: int | None) -> list[str]:
    if found is None:
        return []
    advice = [f"orders reconcile --accept {book.product_id}  # the catalog's {found} is right"]
    if book.figure is not None and found != book.figure:
        advice.append(f"orders reconcile --restore {book.product_id}  # the record's {book.figure} is right")
    return [*advice, f"orders reconcile --set {book.product_id}:{found}=N  # N were counted"]
