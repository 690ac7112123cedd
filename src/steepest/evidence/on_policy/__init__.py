"""Claims of the on-policy papers."""
