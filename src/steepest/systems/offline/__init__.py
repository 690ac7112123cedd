"""Learning from logged data alone."""
