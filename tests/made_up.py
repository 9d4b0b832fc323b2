"""Orders by the hundred thousand, made up by PostgreSQL: for tests that ask what a large table does."""

from tests.conftest import execute

MAKE = """
SET session_replication_role = replica;  -- no triggers, no foreign keys: only the rows
INSERT INTO orders (id, number, customer_id, status, total, placed_at, failure, batch_id, created_at, updated_at,
                    moved_at, held_from, external_reference, metadata, channel)
SELECT id, n, CASE WHEN r1 < 0.1 THEN 7 ELSE 100 + (r1 * %(customers)s)::int END, status,
       CASE WHEN r2 < 0.9 THEN (r2 * 10000)::int ELSE (r2 * 1000000)::int END,
       CASE WHEN status <> 'Failed' THEN at END, CASE WHEN status = 'Failed' THEN 'order_failed' END, id, at,
       least(now(), at + r2 * interval '9 days'), least(now(), at + r2 * interval '9 days'),
       CASE WHEN status = 'On Hold' THEN 'Paid' END, CASE WHEN n %% 10 = 0 THEN 'ref-' || n END,
       CASE WHEN n %% 3 = 0 THEN jsonb_build_object('channel', (ARRAY['web', 'web', 'web', 'shop'])[1 + n %% 4], 'lot',
                                                    (n / 1000)::text) END,
       CASE WHEN n %% 200 = 3 THEN 'fair' WHEN n %% 2 = 0 THEN 'web' END
FROM (
    SELECT n, at, random() AS r1, random() AS r2,
           (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(n %% 4096), 3, '0')
            || '8' || lpad(to_hex(n), 15, '0'))::uuid AS id,
           CASE WHEN n > %(orders)s * 0.99 THEN (ARRAY['Ordered', 'Ordered', 'Paid', 'Processing'])[1 + n %% 4]
                WHEN n > %(orders)s * 0.98 THEN (ARRAY['Shipped', 'Delivered', 'On Hold'])[1 + n %% 3]
                WHEN n %% 100 < 4 THEN 'Cancelled' WHEN n %% 100 = 5 THEN 'Failed'
                WHEN n %% 100 = 6 AND n < %(orders)s / 2 THEN 'Refunded' ELSE 'Completed' END AS status
    FROM (SELECT n, date_trunc('milliseconds', now() - (%(orders)s + 1 - n) * (interval '365 days' / %(orders)s)) AS at
          FROM generate_series(1, %(orders)s) n) t) o;
INSERT INTO order_items (order_id, product_id, quantity, name, unit_price)
    SELECT id, CASE WHEN (number + line) %% 10 = 0 THEN 7
                    ELSE 100 + (number * 7919 + line * 104729) %% %(products)s END,
           1 + number %% 3, 'Product', 10
    FROM orders CROSS JOIN generate_series(1, 2) line WHERE line = 1 OR number %% 2 = 0;
INSERT INTO order_metadata (key, value, order_id)
    SELECT key, value, id FROM orders CROSS JOIN LATERAL jsonb_each_text(metadata) WHERE metadata IS NOT NULL;
SELECT setval('order_numbers', %(orders)s);
RESET session_replication_role
"""


def make_up(dsn: str, orders: int, customers: int = 20_000, products: int = 5_000) -> None:
    """So many orders, evenly over the last year. Customer 7 has every tenth of them and product 7 is in every tenth;
    what is open is new, and what was refunded is old. Half of them came through the channel `web`, few through `fair`.
    """
    execute(dsn, MAKE, {"orders": orders, "customers": customers, "products": products})
    execute(dsn, "VACUUM ANALYZE")
