"""A product's stock: who may write it, the commits around the write (claim, intent, settlement), and recovery's SQL."""
