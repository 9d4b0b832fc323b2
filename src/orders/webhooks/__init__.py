"""Webhooks: endpoints of others, to which each event of each order is sent, in that order's order."""
