"""`make bench`: compares the service's speed with the speed of the machine. See docs/speed.md."""
