"""Changes of a placed order: moving it, cancelling it, taking goods back, describing it."""
