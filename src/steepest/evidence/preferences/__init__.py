"""Claims of the preference papers."""
