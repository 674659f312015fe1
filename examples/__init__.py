"""Examples and what a test or a benchmark shares with them. The wheel does not hold this package."""
