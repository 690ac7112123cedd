"""Claims that anyone can run, and the statistics that judge them."""

from .claim import Claim, Run, final, tail

__all__ = ["Claim", "Run", "final", "tail"]
