"""Claims of the reasoning papers."""
