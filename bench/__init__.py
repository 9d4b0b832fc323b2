"""`make bench`: what the service does beside what the machine can do. See docs/speed.md."""
