"""Secure sums by masks: clients add masks that cancel in the sum, and a server learns the sum alone."""
