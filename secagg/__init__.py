"""Secure sums by masks: clients add masks that cancel in the sum, and a server learns the sum alone."""

from secagg.credentials import Credentials
from secagg.protocol import SecAgg, SecAggPlus

__all__ = ["Credentials", "SecAgg", "SecAggPlus"]
