"""A layer, a strategy and a secure sum of one's own, in under 100 lines each; docs/extending.md shows them."""
