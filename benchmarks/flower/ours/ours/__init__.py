"""The round of PrivateStrategy, measured."""
