"""Secure sums by Paillier encryption: packed, with fast randomisers, under one of three key arrangements."""

from he.paillier.keyring import HolderKey, HolderPublic, Keyring, from_phe, load, make, save
from he.paillier.sum import PaillierSum
from he.paillier.threshold import KeyShare, ThresholdKey

__all__ = [
    "HolderKey",
    "HolderPublic",
    "KeyShare",
    "Keyring",
    "PaillierSum",
    "ThresholdKey",
    "from_phe",
    "load",
    "make",
    "save",
]
