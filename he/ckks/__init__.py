"""Sums by CKKS: parameters, coefficient packing, exact opening by a key holder or by clients that share a
key.
"""

from he.ckks.keys import SharedKey
from he.ckks.sum import CKKSSum

__all__ = ["CKKSSum", "SharedKey"]
