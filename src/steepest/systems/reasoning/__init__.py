"""Reinforcement learning from verifiable rewards on text."""
