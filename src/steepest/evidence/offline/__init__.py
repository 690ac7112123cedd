"""Claims of the offline papers."""
