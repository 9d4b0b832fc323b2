"""The bodies of the routes that change an order, as the document at /docs describes them."""

from typing import Annotated

from fastapi import Body

from orders.changing.schemas import Cancellation, Return

ToCancel = Annotated[
    Cancellation | None,
    Body(
        openapi_examples={
            "whole": {"summary": "The whole order", "value": {"reason": "customer", "note": "Changed their mind."}},
            "part": {
                "summary": "A part of it",
                "value": {"reason": "inventory", "items": [{"id": 1, "quantity": 2}]},
            },
            "without restocking": {"summary": "The goods are gone", "value": {"reason": "other", "restock": False}},
        }
    ),
]


ToReturn = Annotated[
    Return | None,
    Body(
        openapi_examples={
            "part": {
                "summary": "Two came back, one of them damaged",
                "value": {
                    "reason": "customer",
                    "items": [{"id": 1, "quantity": 1}, {"id": 1, "quantity": 1, "condition": "damaged"}],
                },
            },
            "whole": {"summary": "All of it", "value": {"note": "Refused at the door."}},
        }
    ),
]
