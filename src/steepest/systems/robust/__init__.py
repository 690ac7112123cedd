"""Policies for the worst model that nature may choose."""
