"""steepest: policy optimization, every method of it, as short files made of shared parts."""

__version__ = "0.1.0"
