"""An order after it is placed: moved, cancelled, taken back, described."""
