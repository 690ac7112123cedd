"""Policies that generate: diffusion and its relatives."""
