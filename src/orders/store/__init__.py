"""The SQL: each query beside the one function that runs it. A function is one round trip and one transaction."""
