"""Who may ask, and what: the check of access, API keys, customers' tokens, limits and the audit."""
