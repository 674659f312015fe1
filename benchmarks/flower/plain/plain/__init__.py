"""One unprotected round, measured."""
