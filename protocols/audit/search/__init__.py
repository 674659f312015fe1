"""Searches of an adversary that plans: over views, lists, votes and schedules. Verdicts are made in `properties`."""
