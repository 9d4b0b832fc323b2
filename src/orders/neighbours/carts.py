"""The Shopping Cart Service's client. The cart service's own names stop here."""

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from orders.coalescing import Coalescer
from orders.neighbours.neighbour import Found, Neighbour
from orders.neighbours.reply import MalformedReply, MixedUp, Reply, TooLarge, brief
from orders.order.model import MAX_ID, MAX_QUANTITY, Line, merge_lines

_CLOSE = b'{"status": "Ordered"}'

MAX_ITEMS_BYTES = 8 * 1024 * 1024
"""Maximum size of the reply to `GET /cart_items`, which holds the items of all carts: 120,000 of them fit."""

_ITEMS_READS = 1
"""Number of concurrent `GET /cart_items`. Requests that arrive during one share the next."""


@dataclass(frozen=True, slots=True)
class Cart:
    """A customer's cart. `is_active` is False if the cart is ordered already and the service still shows it."""

    id: int
    is_active: bool
    lines: tuple[Line, ...]


class Carts:
    """Reads a customer's cart and closes it."""

    def __init__(self, neighbour: Neighbour) -> None:
        self._neighbour = neighbour
        self._items: Coalescer[int, list[Any]] = Coalescer(self._items_of, parallel=_ITEMS_READS, size=1000)

    async def read(self, customer_id: int, flow: Hashable = None, *, surely: bool = False) -> Cart | None:
        """The customer's cart with its lines merged, or None. Raises NotSent, NoAnswer or MalformedReply.

        `flow`: on whose behalf. `surely`: return None only if the service said three times that there is no cart.
        """
        understand = functools.partial(_understand, customer_id)
        found = await self._neighbour.get(f"/carts/{customer_id}", understand, flow=flow, surely=surely)
        if found is None:
            return None
        items = found.items
        if items is None and found.is_active:
            items = await self._items.get(found.id)
        return Cart(found.id, found.is_active, _lines(items or []))

    async def close(self, customer_id: int) -> bool:
        """Tell the service that the customer's cart is ordered. Safe to repeat. Returns False if the service refused.

        Raises NotSent, NoAnswer or MalformedReply.
        """
        reply = await self._neighbour.put(f"/carts/{customer_id}", _CLOSE)
        if _is_done(reply):
            return True
        # A text may mean "closed" or "not found", or be another call's answer. The cart itself tells which.
        cart = await self.read(customer_id, surely=True)
        return cart is None or not cart.is_active

    async def _items_of(self, cart_ids: Sequence[int]) -> dict[int, list[Any]]:
        understand = functools.partial(_understand_items, frozenset(cart_ids))
        try:
            return await self._neighbour.get("/cart_items", understand, surely=True, max_bytes=MAX_ITEMS_BYTES)
        except TooLarge as error:
            raise MalformedReply(
                f"GET /cart_items: {error}; let GET /carts/{{customer_id}} answer with the cart's `items`"
            ) from None


@dataclass(frozen=True, slots=True)
class _Document:
    """A cart as the service sent it. If `items` is None, the items have to be asked for."""

    id: int
    is_active: bool
    items: list[Any] | None


def _is_done(reply: Reply) -> bool:
    """Whether the service acknowledged the PUT with something other than a text."""
    return 200 <= reply.status < 300 and not reply.body.lstrip().startswith(b'"')


def _understand(customer_id: int, reply: Reply) -> Found[_Document | None]:
    path = f"GET /carts/{customer_id}"
    if reply.status not in (200, 404):
        raise MalformedReply(f"it answered {reply.status} to {path}")
    document = "" if reply.status == 404 else reply.json()
    if isinstance(document, str):
        return Found(None, is_good=False)
    cart = document.get("cart", document) if isinstance(document, dict) else None
    if not isinstance(cart, dict):
        raise MalformedReply(f"{path} answered without a cart")
    if cart.get("customer_id", customer_id) != customer_id:
        raise MixedUp(f"{path} answered with a cart of customer {brief(cart['customer_id'])}")
    cart_id = _integer(cart.get("id"), MAX_ID, "the cart's id")
    items = cart.get("items", document.get("items"))
    if items is not None and not isinstance(items, list):
        raise MalformedReply("the cart's items are not a list")
    ours = None if items is None else [item for item in items if _belongs(item, cart_id)]
    is_whole = ours is None or (bool(ours) and len(ours) == len(items or []))
    is_active = str(cart.get("status", "Active")).lower() == "active"
    return Found(_Document(cart_id, is_active, ours), not is_active or is_whole, is_checked="customer_id" in cart)


def _belongs(item: Any, cart_id: int) -> bool:
    """Whether an item belongs to the cart that it came with. An item that names no cart does."""
    return not isinstance(item, dict) or item.get("cart_id", cart_id) == cart_id


def _understand_items(cart_ids: frozenset[int], reply: Reply) -> Found[dict[int, list[Any]]]:
    """The items of these carts. Items of other carts are dropped while the reply is read."""
    if reply.status != 200:
        raise MalformedReply(f"it answered {reply.status} to GET /cart_items")
    document = reply.json(keep=lambda found: "cart_id" not in found or _cart_of(found) in cart_ids)
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise MalformedReply("GET /cart_items answered without a list of items")
    of: dict[int, list[Any]] = {cart_id: [] for cart_id in cart_ids}
    for item in items:
        cart_id = _cart_of(item)
        if cart_id in of:
            of[cart_id].append(item)
    return Found(of, is_good=all(of.values()), is_checked=False)


def _cart_of(item: Any) -> int:
    """The cart that an item names, or 0 if it names none."""
    cart_id = item.get("cart_id") if isinstance(item, dict) else None
    return cart_id if type(cart_id) is int else 0


def _lines(items: list[Any]) -> tuple[Line, ...]:
    """The lines. Items with a quantity of 0 or less, which naive services keep, are left out."""
    if not all(isinstance(item, dict) for item in items):
        raise MalformedReply("a cart's item is not a JSON object")
    lines = [
        Line(
            _integer(item.get("product_id"), MAX_ID, "a cart item's product_id"),
            _integer(item.get("quantity"), MAX_QUANTITY, "a cart item's quantity"),
        )
        for item in items
        if not (type(item.get("quantity")) is int and item["quantity"] <= 0)
    ]
    return merge_lines(lines)


def _integer(value: Any, maximum: int, what: str) -> int:
    if type(value) is not int or not 1 <= value <= maximum:
        raise MalformedReply(f"{what} is {brief(value)}, not an integer from 1 to {maximum}")
    return value
