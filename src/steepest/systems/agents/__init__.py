"""Agents that learn without gradients: experience is written down and read back into the prompt."""
