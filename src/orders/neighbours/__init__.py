"""The catalog and the cart service: what they answer, how much they can take, and when they get a rest."""
