"""Models: all that has parameters."""
