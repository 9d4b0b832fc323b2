"""The sorting of a batch after CLAIM: which entries go on, and what becomes of the others. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from orders.errors import OrderError, reference_taken
from orders.order.idempotency import Answer, replay
from orders.placing.entry import Entry, PlaceOrder
from orders.stock.claim_sql import CartOrder, Claimed, ReferenceOrder


@dataclass(slots=True)
class Sorted:
    """The entries of a batch after CLAIM; each is in one of the first five.

    `replayed`: their key has an answer, or is refused. `repeated`: their cart has become an order already. `taken`:
    their reference is another order's. `ready`: they got all that they need. `again`: they have to wait; `held` are
    the products that are not to be asked for at once. `products` and `keys` were claimed, and nobody ready needs them.
    """

    replayed: dict[PlaceOrder, Answer | OrderError] = field(default_factory=dict)
    repeated: dict[PlaceOrder, CartOrder] = field(default_factory=dict)
    taken: dict[PlaceOrder, OrderError] = field(default_factory=dict)
    ready: list[Entry] = field(default_factory=list)
    again: list[Entry] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    products: frozenset[int] = frozenset()
    keys: frozenset[str] = frozenset()

    def note(self, entry: Entry, claimed: Claimed) -> None:
        """Put the entry where it belongs."""
        if isinstance(entry, PlaceOrder) and not entry.is_plain and self._note_outcome(entry, claimed):
            return
        (self.ready if has_all(entry, claimed) else self.again).append(entry)

    def _note_outcome(self, order: PlaceOrder, claimed: Claimed) -> bool:
        """Whether the order has its answer already."""
        if order.key in claimed.keys_in_use:
            self.replayed[order] = _first_outcome(order, claimed)
        elif cart_order := placed_cart(order, claimed.cart_orders):
            self.repeated[order] = cart_order
        elif error := reference_error(order, claimed.references):
            self.taken[order] = error
        else:
            return False
        return True


def sort_out(entries: Sequence[Entry], claimed: Claimed) -> Sorted:
    """Sort the entries of a batch by what CLAIM got, and what stood in the way."""
    found = Sorted()
    for entry in entries:
        found.note(entry, claimed)
    # Entries with all their products miss their cart, key or reference: another batch has it. Their products count as
    # held, so that they are tried again after a pause.
    elsewhere = {p for entry in found.again if entry.products <= claimed.products for p in entry.products}
    found.held = elsewhere | (products_of(entries) - claimed.products)
    found.products = claimed.products - products_of(found.ready)
    found.keys = claimed.keys - {order.key for order in orders_of(found.ready) if order.key}
    return found


def has_all(entry: Entry, claimed: Claimed) -> bool:
    """Whether the entry got all that it needs. Otherwise another batch, here or elsewhere, is at work on it."""
    if not entry.products <= claimed.products:
        return False
    if not isinstance(entry, PlaceOrder) or entry.is_plain:
        return True
    has_key = entry.key is None or entry.key in claimed.keys
    return has_key and entry.cart not in claimed.cart_orders and entry.reference not in claimed.references


def _first_outcome(order: PlaceOrder, claimed: Claimed) -> Answer | OrderError:
    try:
        return replay(claimed.keys_in_use[order.key or ""], order.request.fingerprint)
    except OrderError as error:
        return error


def placed_cart(order: PlaceOrder, cart_orders: Mapping[tuple[int, int], CartOrder]) -> CartOrder | None:
    """The placed order that its cart has become already."""
    found = cart_orders.get(order.cart) if order.cart else None
    return found if found and found.is_placed else None


def reference_error(order: PlaceOrder, references: Mapping[str, ReferenceOrder]) -> OrderError | None:
    """409 where a placed order has its reference."""
    found = references.get(order.reference) if order.reference else None
    if not found or not found.is_placed:
        return None
    return reference_taken(order.reference or "", _if_own(order, found))


def _if_own(order: PlaceOrder, found: ReferenceOrder) -> UUID | None:
    """The order's ID, for its own customer."""
    return found.order_id if order.request.customer_id == found.customer_id else None


def orders_of(entries: Iterable[Entry]) -> list[PlaceOrder]:
    """The entries that are orders to place."""
    return [entry for entry in entries if isinstance(entry, PlaceOrder)]


def products_of(entries: Iterable[Entry]) -> set[int]:
    """All products that the entries need."""
    return {product_id for entry in entries for product_id in entry.products}
