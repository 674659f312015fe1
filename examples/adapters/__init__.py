"""Pairs of small programs: somebody's own loop, and the same loop federated. Their diffs are docs/recipes.md."""
