"""Secure sums by homomorphic encryption. The names below are all that a user's script needs.

Each backend is loaded on first use, so that `import he` costs nothing; a missing library raises `MissingExtra`, whose
one sentence holds the pip command.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from he.arrangements import KeyHolder, SharedByClients, Threshold
from protocols.extras import needs

if TYPE_CHECKING:
    from he.ckks import CKKSSum
    from he.paillier import PaillierSum

__all__ = ["CKKSSum", "KeyHolder", "PaillierSum", "SharedByClients", "Threshold"]

_BACKENDS = {"PaillierSum": "he.paillier", "CKKSSum": "he.ckks"}


def __getattr__(name: str) -> object:
    """Load a backend on first use. Raises MissingExtra without its libraries, AttributeError for another name."""
    if name not in _BACKENDS:
        raise AttributeError(f"module 'he' has no attribute {name!r}")
    with needs("he", name):
        return getattr(import_module(_BACKENDS[name]), name)
