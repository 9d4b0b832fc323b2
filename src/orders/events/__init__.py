"""The journey of events out of the service: each gets a position in the feed, and readers follow the feed."""
