"""`python -m orders.cli`: the same as the command `orders`."""

from orders.cli.main import main

main()
