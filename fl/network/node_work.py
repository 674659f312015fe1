"""What a node computes in a round, as its party asks for it: a broadcast, and its contribution.

What does not belong here: checks, sessions, stores (`node_party`), a loop (`federated`), a framework's records.
"""

from typing import Protocol, TypeVar

from fl.network.messages import Header
from fl.round import Broadcast, Work
from protocols.session import Session
from protocols.store import Store

Shown_contra = TypeVar("Shown_contra", contravariant=True)


class NodeWork(Work, Protocol[Shown_contra]):
    """One client's part of one round. `open` comes first; the call, which trains, only if every check passed."""

    def open(self, header: Header, session: Session, shown: Shown_contra) -> Broadcast:
        """Return the round as this node computes it from what it was shown. Raises Misuse, PeerError."""
        ...

    def prepare(self, header: Header, name: str, store: Store, shown: Shown_contra) -> None:
        """Train on a model that a sum will ask for later, and keep what comes of it in this node's store."""
        ...
