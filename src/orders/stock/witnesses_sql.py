"""Products and customers that the neighbours should know, because they were ordered. `orders doctor` asks for them."""

from dataclasses import dataclass

from orders.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Product and customer IDs, those most likely to be known first."""

    products: tuple[int, ...] = ()
    customers: tuple[int, ...] = ()


def witnesses(connection: Connection) -> Witnesses:
    """The products whose stock was written last, the lowest one that was ordered, and the customers of
    the last orders.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT product_id FROM stock_record ORDER BY id DESC LIMIT 20")
        products = [product_id for (product_id,) in cursor][:20]
        cursor.execute("SELECT min(product_id) FROM order_items WHERE product_id > 0")
        products = [*dict.fromkeys(products)][:3] + [product_id for (product_id,) in cursor if product_id]
        cursor.execute("SELECT customer_id FROM orders WHERE customer_id > 0 ORDER BY id DESC LIMIT 3")
        return Witnesses(tuple(dict.fromkeys(products)), tuple(dict.fromkeys(row[0] for row in cursor)))
