"""The command line and everything that prints or writes."""
