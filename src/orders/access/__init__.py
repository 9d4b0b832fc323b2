"""The check of access: API keys, customers' tokens, requests from this machine, limits and the audit."""
