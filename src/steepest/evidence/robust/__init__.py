"""Claims of the robust papers."""
