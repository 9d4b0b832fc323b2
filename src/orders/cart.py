"""The Shopping Cart Service's client. The cart service's own names stop here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orders.batching import Batcher
from orders.neighbour import MAX_REPLY_BYTES, Neighbour, Rubbish, brief
from orders.order import MAX_ID, MAX_QUANTITY, Line, merge_lines

_CLOSE = b'{"status": "Ordered"}'

_MAX_ITEMS_BYTES = 32 * 1024 * 1024
"""`GET /cart_items` answers with the items of all carts; half a million of them fit."""

_ITEMS_READS = 2
"""So many of those replies are read at once; who asks meanwhile shares the next."""


@dataclass(frozen=True, slots=True)
class Cart:
    """A customer's cart. `is_active` is False for one that was ordered already, where the service still shows it."""

    id: int
    is_active: bool
    lines: tuple[Line, ...]


class Carts:
    """Reads a customer's cart and closes it."""

    def __init__(self, neighbour: Neighbour) -> None:
        self._neighbour = neighbour
        self._items: Batcher[int, list[Any]] = Batcher(self._items_of, parallel=_ITEMS_READS, size=1000)

    async def read(self, customer_id: int) -> Cart | None:
        """The customer's cart with its lines merged, or None. Raises NotSent, NoAnswer or Rubbish."""
        document = await self._get(f"/carts/{customer_id}")
        if isinstance(document, str):
            return None
        cart, items = _parse_cart(customer_id, document)
        cart_id = _integer(cart.get("id"), MAX_ID, "the cart's id")
        is_active = str(cart.get("status", "Active")).lower() == "active"
        if items is None and is_active:
            items = await self._items.get(cart_id)
        return Cart(cart_id, is_active, _lines(items or []))

    async def close(self, customer_id: int) -> bool:
        """Tell the service that the customer's cart is ordered; safe to repeat. False: it refused.

        Raises NotSent, NoAnswer or Rubbish.
        """
        reply = await self._neighbour.put(f"/carts/{customer_id}", _CLOSE)
        return 200 <= reply.status < 300

    async def _items_of(self, cart_ids: Sequence[int]) -> dict[int, list[Any]]:
        document = await self._get("/cart_items", _MAX_ITEMS_BYTES)
        items = document.get("items") if isinstance(document, dict) else None
        if not isinstance(items, list):
            raise Rubbish("GET /cart_items answered without a list of items")
        of: dict[int, list[Any]] = {cart_id: [] for cart_id in cart_ids}
        for item in items:
            cart_id = item.get("cart_id") if isinstance(item, dict) else None
            if type(cart_id) is int and cart_id in of:
                of[cart_id].append(item)
        return of

    async def _get(self, path: str, max_bytes: int = MAX_REPLY_BYTES) -> Any:
        """The reply's document; a text where there is nothing."""
        reply = await self._neighbour.get(path, max_bytes)
        if reply.status == 404:
            return ""
        if reply.status != 200:
            raise Rubbish(f"it answered {reply.status} to GET {path}")
        return reply.json()


def _parse_cart(customer_id: int, document: Any) -> tuple[dict[str, Any], list[Any] | None]:
    cart = document.get("cart", document) if isinstance(document, dict) else None
    if not isinstance(cart, dict):
        raise Rubbish(f"GET /carts/{customer_id} answered without a cart")
    if cart.get("customer_id", customer_id) != customer_id:
        raise Rubbish(f"GET /carts/{customer_id} answered with a cart of customer {brief(cart['customer_id'])}")
    items = cart.get("items", document.get("items"))
    if items is not None and not isinstance(items, list):
        raise Rubbish("the cart's items are not a list")
    return cart, items


def _lines(items: list[Any]) -> tuple[Line, ...]:
    if not all(isinstance(item, dict) for item in items):
        raise Rubbish("a cart's item is not a JSON object")
    lines = [
        Line(
            _integer(item.get("product_id"), MAX_ID, "a cart item's product_id"),
            _integer(item.get("quantity"), MAX_QUANTITY, "a cart item's quantity"),
        )
        for item in items
        if item.get("quantity") != 0
    ]
    return merge_lines(lines)


def _integer(value: Any, maximum: int, what: str) -> int:
    if type(value) is not int or not 1 <= value <= maximum:
        raise Rubbish(f"{what} is {brief(value)}, not an integer from 1 to {maximum}")
    return value
