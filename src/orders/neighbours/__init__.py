"""Clients of the catalog and the cart service: what replies mean, how many calls overlap, and the circuit breaker."""
