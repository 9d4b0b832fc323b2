"""A small Product Catalog Service and a small Shopping Cart Service to run against, with faults to switch on."""
