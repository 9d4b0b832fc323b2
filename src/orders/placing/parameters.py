"""The bodies of the routes that place an order, as the document at /docs describes them."""

from typing import Annotated

from fastapi import Body

from orders.placing.schemas import OrderToPlace

ToPlace = Annotated[
    OrderToPlace | None,
    Body(
        openapi_examples={
            "items": {
                "summary": "Explicit items",
                "value": {"items": [{"product_id": 7, "quantity": 2}, {"product_id": 3, "quantity": 1}]},
            },
            "details": {
                "summary": "With fields for others",
                "value": {
                    "items": [{"product_id": 7, "quantity": 2}],
                    "external_reference": "web-2026-004711",
                    "metadata": {"channel": "web", "gift": True},
                    "notes": {"public": "Leave it with the neighbour."},
                },
            },
            "cart": {"summary": "The customer's cart", "value": {}},
        }
    ),
]
