"""The sorting of a batch after CLAIM: which entries go on, and what becomes of the others. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from orders.errors import OrderError, no_active_cart, reference_taken
from orders.order.idempotency import Answer, replay
from orders.placing.entry import Entry, PlaceOrder
from orders.stock.claim_sql import CartOrder, Claimed, ReferenceOrder


@dataclass(slots=True)
class ClaimResult:
    """The entries of a batch after CLAIM; each is in one of the first five.

    `known_key`: they are answered, or refused, from the stored key. `known_cart`: their cart has become an order
    already. `refused`: another order has their reference, or whoever asks may not see the order of their cart.
    `ready`: they got all that they need. `again`: they have to wait; the `ask_later` products are not asked for at
    once. `spare_products` and `spare_keys` were claimed, and no ready entry needs them: they are released.
    """

    known_key: dict[PlaceOrder, Answer | OrderError] = field(default_factory=dict)
    known_cart: dict[PlaceOrder, CartOrder] = field(default_factory=dict)
    refused: dict[PlaceOrder, OrderError] = field(default_factory=dict)
    ready: list[Entry] = field(default_factory=list)
    again: list[Entry] = field(default_factory=list)
    ask_later: set[int] = field(default_factory=set)
    spare_products: frozenset[int] = frozenset()
    spare_keys: frozenset[str] = frozenset()

    def note(self, entry: Entry, claimed: Claimed) -> None:
        """Put the entry where it belongs."""
        if isinstance(entry, PlaceOrder) and not entry.is_plain and self._note_outcome(entry, claimed):
            return
        (self.ready if has_all(entry, claimed) else self.again).append(entry)

    def _note_outcome(self, order: PlaceOrder, claimed: Claimed) -> bool:
        """Whether the order has its answer already."""
        if order.key in claimed.keys_in_use:
            self.known_key[order] = _first_outcome(order, claimed)
        elif cart_order := placed_cart(order, claimed.cart_orders):
            self.known_cart[order] = cart_order
        elif error := refusal_after_claim(order, claimed):
            self.refused[order] = error
        else:
            return False
        return True


def sort_out(entries: Sequence[Entry], claimed: Claimed) -> ClaimResult:
    """Sort the entries of a batch by what CLAIM got, and what stood in the way."""
    found = ClaimResult()
    for entry in entries:
        found.note(entry, claimed)
    # These entries got all their products, but not their key, cart or reference, because another batch has it. Their
    # products are not asked for at once either, so that they are tried again after a pause.
    elsewhere = {p for entry in found.again if entry.products <= claimed.products for p in entry.products}
    found.ask_later = elsewhere | (products_of(entries) - claimed.products)
    found.spare_products = claimed.products - products_of(found.ready)
    found.spare_keys = claimed.keys - {order.key for order in orders_of(found.ready) if order.key}
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
    """The placed order that its cart has become already, if whoever asks may see it."""
    found = _order_of_cart(order, cart_orders)
    return found if found and order.request.seer.sees(order.request.customer_id, found.channel) else None


def _order_of_cart(order: PlaceOrder, cart_orders: Mapping[tuple[int, int], CartOrder]) -> CartOrder | None:
    found = cart_orders.get(order.cart) if order.cart else None
    return found if found and found.is_placed else None


def refusal_after_claim(order: PlaceOrder, claimed: Claimed) -> OrderError | None:
    """404 where its cart has become an order that whoever asks may not see, and 409 where a placed order has its
    reference.
    """
    if _order_of_cart(order, claimed.cart_orders) and not placed_cart(order, claimed.cart_orders):
        return no_active_cart(order.request.customer_id)
    return _reference_error(order, claimed.references)


def _reference_error(order: PlaceOrder, references: Mapping[str, ReferenceOrder]) -> OrderError | None:
    found = references.get(order.reference) if order.reference else None
    if not found or not found.is_placed:
        return None
    return reference_taken(order.reference or "", _if_own(order, found))


def _if_own(order: PlaceOrder, found: ReferenceOrder) -> UUID | None:
    """The order's ID, for its own customer if whoever asks may see it."""
    request = order.request
    is_own = request.customer_id == found.customer_id and request.seer.sees(found.customer_id, found.channel)
    return found.order_id if is_own else None


def orders_of(entries: Iterable[Entry]) -> list[PlaceOrder]:
    """The entries that are orders to place."""
    return [entry for entry in entries if isinstance(entry, PlaceOrder)]


def products_of(entries: Iterable[Entry]) -> set[int]:
    """All products that the entries need."""
    return {product_id for entry in entries for product_id in entry.products}
