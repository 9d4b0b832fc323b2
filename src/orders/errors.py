"""All errors that this service knows: code, HTTP status, title. Each is raised as a sentence, and becomes a problem
document.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """The stable part of an error: its HTTP status, its title, and what the caller can do about it."""

    status: int
    title: str
    advice: str


_TRY_LATER = "Nothing was ordered. Try later; with a new Idempotency-Key, if you sent one."


class Code(Enum):
    """The stable codes. The enum's name in lower case is the `code` of the problem document."""

    INVALID_REQUEST = Kind(422, "The request is malformed", "`errors` says what is wrong and where.")
    HOST_INVALID = Kind(400, "The request needs one Host header", "Send one, as HTTP/1.1 demands.")
    HOST_UNKNOWN = Kind(
        421, "This host is not served here", "Use one of the names in ORDERS_HOSTS, or add this one to it."
    )
    CROSS_SITE = Kind(
        403,
        "A page of another site may not do this",
        "Call from your server, or name the page's origin in ORDERS_CORS_ORIGINS.",
    )
    CREDENTIAL_REQUIRED = Kind(
        401, "This needs a key or a token", "Send `Authorization: Bearer …`. `orders keys create` makes a key."
    )
    CREDENTIAL_INVALID = Kind(
        401,
        "The key or the token is not valid",
        "It is wrong, has expired, or was revoked. Ask for a new one; `orders keys list` shows the keys.",
    )
    NOT_PERMITTED = Kind(403, "This credential may not do this", "Use one that has the scope in `required_scope`.")
    KEY_ENDED = Kind(
        409,
        "This API key has ended",
        "It was revoked, has expired, or was replaced. Rotate the one in `replaced_by`, or make a new one.",
    )
    RATE_LIMITED = Kind(
        429, "Too many requests", "Nothing was done. Ask again after `Retry-After`; `violated_policies` says what for."
    )
    TOKENS_UNCHECKED = Kind(
        503,
        "Tokens can't be checked: their issuer's keys are not known",
        "Nothing was done, and the token may be valid. Ask again after `Retry-After`; API keys work meanwhile.",
    )
    BODY_TOO_LARGE = Kind(413, "The request body is too large", "Send less; an order has at most 500 products.")
    NOT_HTTP = Kind(400, "This is not HTTP", "Send HTTP/1.1; `detail` says what can't be read.")
    HEAD_TOO_LARGE = Kind(431, "The request line and headers are too large", "Send fewer and shorter headers.")
    REQUEST_TOO_SLOW = Kind(408, "The request did not arrive in time", "Nothing was done. Send it again, faster.")
    CONNECTIONS_FULL = Kind(503, "Too many connections are busy", "Nothing was done. Ask again after `Retry-After`.")
    NOT_FOUND = Kind(404, "There is nothing here", "See /docs for what there is.")
    METHOD_NOT_ALLOWED = Kind(405, "This can't be done here", "See /docs for the methods of this address.")
    ORDER_NOT_FOUND = Kind(404, "Order not found", "Check the order's ID.")
    NO_ORDERS_FOR_CUSTOMER = Kind(404, "No orders found for the customer", "Check the customer's ID.")
    CART_NOT_FOUND = Kind(404, "The customer has no active cart", "Put something into a cart, or send `items`.")
    CART_EMPTY = Kind(400, "The customer's cart is empty", "Put something into the cart, or send `items`.")
    INSUFFICIENT_INVENTORY = Kind(
        400, "Insufficient inventory", "`errors` names each line that falls short; order what is available."
    )
    TOTAL_TOO_LARGE = Kind(422, "The order's total is too large", "Split the order: a total is at most 2^63-1.")
    STATUS_NOT_ALLOWED = Kind(409, "The order can't move to this status", "Choose one of `allowed_statuses`.")
    QUANTITY_EXCEEDED = Kind(
        409, "There is not that much left", "`errors` names each line, with what is left of it. Read the order again."
    )
    VERSION_CHANGED = Kind(
        412, "It has changed since you read it", "Read it again; `version` is the one that it has now."
    )
    BATCH_REFUSED = Kind(
        409,
        "Nothing was changed: some of the orders were refused",
        "`errors` says which and why. Leave those out, or send `error_policy` `each`.",
    )
    IF_MATCH_REQUIRED = Kind(
        428, "This change needs `If-Match`", "Send the `ETag` of the order, as you read it, in `If-Match`."
    )
    NOT_RECORDED = Kind(404, "The order is not known as of then", "Ask for a version or a time that `detail` names.")
    EXTERNAL_REFERENCE_TAKEN = Kind(
        409,
        "Another order has this external reference",
        "If it is the same customer's, `order_id` is that order. Look at it, or use another reference.",
    )
    POSITION_AHEAD = Kind(
        409,
        "The feed does not go on from here",
        "This is another database, or it lost its last commits: `head` is where its feed ends. Compare what you have "
        "with the orders, and go on from a position that the feed has.",
    )
    POSITION_GONE = Kind(
        410,
        "The feed does not go back that far",
        "Its older events are not kept; orders' histories still have them. `first` is the first position that there "
        "is: read on from there, and compare what you have with the orders.",
    )
    WEBHOOK_NOT_FOUND = Kind(404, "Webhook not found", "Check its ID; `GET /webhooks` lists them.")
    DELIVERY_NOT_FOUND = Kind(404, "Delivery not found", "Check its ID. Deliveries that ended long ago are deleted.")
    WEBHOOK_DISABLED = Kind(
        409, "The webhook is disabled", "Nothing was sent. Enable it: `PATCH` with `status` `enabled`."
    )
    TOO_MANY_WEBHOOKS = Kind(
        409, "There are too many webhooks", "Delete one that nobody needs, or raise the setting ORDERS_WEBHOOKS."
    )
    ADDRESS_NOT_ALLOWED = Kind(
        422,
        "Webhooks are not sent to this address",
        "Use a URL that leads to the public internet. Whoever runs the service can allow others in "
        "ORDERS_WEBHOOK_ALLOW.",
    )
    SECRET_NOT_SET = Kind(
        503,
        "This needs the setting ORDERS_SECRET",
        "Set it, to the same value in every replica, and start again. Secrets of webhooks are encrypted with it.",
    )
    STREAMS_FULL = Kind(503, "Too many requests wait for events", "Ask again after `Retry-After`, or without `wait`.")
    DESCRIBED_TOO_OFTEN = Kind(
        409,
        "The order's details were changed too often",
        "Its history keeps 1,000 such changes. Its status can still be changed; keep what changes often elsewhere.",
    )
    KEY_IN_USE = Kind(409, "The first request with this key is still running", "Ask again after `Retry-After`.")
    KEY_REUSED = Kind(422, "This key belongs to another request", "Use a new Idempotency-Key for a new request.")
    ORDER_FAILED = Kind(
        500,
        "The order could not be created",
        "Nothing was ordered; any stock that was taken goes back. Try again with a new Idempotency-Key.",
    )
    CATALOG_UNAVAILABLE = Kind(500, "The Product Catalog Service is unavailable", _TRY_LATER)
    CATALOG_REPLY_INVALID = Kind(
        500,
        "The Product Catalog Service sent a reply of the wrong shape",
        "Nothing was ordered. Mend the catalog, and try with a new Idempotency-Key.",
    )
    CART_UNAVAILABLE = Kind(500, "The Shopping Cart Service is unavailable", _TRY_LATER)
    CART_REPLY_INVALID = Kind(
        500,
        "The Shopping Cart Service sent a reply of the wrong shape",
        "Nothing was ordered. Mend the cart service, and try with a new Idempotency-Key.",
    )
    NEIGHBOUR_RESTING = Kind(
        503, "A neighbour keeps failing and is given a rest", "Nothing was ordered. Ask again after `Retry-After`."
    )
    STOCK_BUSY = Kind(
        503,
        "The product's stock is being settled",
        "Another order for the same product has an uncertain outcome. Nothing was ordered. "
        "Ask again after `Retry-After`.",
    )
    OVERLOADED = Kind(503, "Too many orders are waiting", "Nothing was ordered. Ask again after `Retry-After`.")
    DATABASE_UNAVAILABLE = Kind(503, "The database can't be reached", "Ask again after `Retry-After`.")
    DATABASE_FULL = Kind(
        503,
        "The database has no room left",
        "Nothing was changed. Make room on its disk; ask again after `Retry-After`.",
    )
    TOO_SLOW = Kind(503, "This takes too long", "Ask for less: add filters, or leave `include_total` out.")
    INTERNAL_ERROR = Kind(500, "Something is wrong in this service", "Report it with the time; the log has the rest.")


class OrderError(Exception):
    """An error with a code, a sentence for `detail`, and further members of the problem document.

    `extra` members go into the document as they are. `retry_after_s` becomes the `Retry-After` header.
    """

    def __init__(
        self, code: Code, detail: str, *, extra: Mapping[str, Any] | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.extra = dict(extra or {})
        self.retry_after_s = retry_after_s


def problem(error: OrderError, instance: str) -> dict[str, Any]:
    """The RFC 9457 problem document of `error`. `instance` is the path of the request."""
    kind = error.code.value
    code = error.code.name.lower()
    return {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": error.detail,
        "instance": instance,
        "code": code,
        **error.extra,
    }


def no_active_cart(customer_id: int) -> OrderError:
    """The error (404) for a cart that is not there, or that has been ordered already."""
    return OrderError(Code.CART_NOT_FOUND, f"Customer {customer_id} has no active cart.")


def no_customer(text: str, expected: str = "a customer's ID (1 … 2^63-1)") -> OrderError:
    """The error (404) for an address with a text that is no customer's ID, or that of a customer whose orders whoever
    asks may not see.
    """
    return OrderError(Code.NOT_FOUND, f"{text[:60]!r} is not {expected}.")


def reference_taken(reference: str | None, order_id: object) -> OrderError:
    """The error (409) for an external reference that another order has. `order_id` is given only to the
    same customer, if whoever asks may see that order.
    """
    other = f"order {order_id}" if order_id else "another order"
    detail = f"The external reference {reference!r} is that of {other}."
    return OrderError(
        Code.EXTERNAL_REFERENCE_TAKEN, detail, extra={"order_id": str(order_id)} if order_id is not None else {}
    )


def invalid(pointer: str, code: str, message: str) -> OrderError:
    """The error (422) for one thing that is wrong."""
    return OrderError(
        Code.INVALID_REQUEST, message, extra={"errors": [{"pointer": pointer, "code": code, "message": message}]}
    )
