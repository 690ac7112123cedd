"""Claims of agents without gradients."""
