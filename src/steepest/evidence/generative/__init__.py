"""Claims of the generative papers."""
