"""Who may write a product's stock, and the commits around that: claim, intent, settlement, what a dead replica left."""
