"""Handwritten digits over four sites: one Federation, run in memory, in Flower's simulation, or on many machines."""
