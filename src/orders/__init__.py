"""An order management service: it turns carts and item lists into orders whose stock is really taken."""
