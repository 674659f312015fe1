"""Agreement before anything is opened: one signed statement, and a quorum that two views cannot both reach.

Whatever a server sends to each recipient may differ per recipient. So before a party opens a share, a key or a
ciphertext, it asks for a certificate: signatures by a quorum of the voters over a digest of everything that decides
what is opened. An honest voter signs at most one digest per session. Of n voters at most c are corrupt, and a
certificate has q = floor((n + c) / 2) + 1 signatures; two certificates share 2q - n > c voters, so an honest one
among them, and are of one digest. (Bracha and Toueg, JACM 1985, count echoes the same way.) Silent voters help no
second view: the count is over signatures that came.

This serves masked sums (the graph, dealers and survivors), threshold decryption and keys that clients share (the
contributions). It does no I/O. What does not belong here: what is agreed on, who votes, and what is opened.

    facts = {"dealers": dealers, "survivors": survivors}
    ballot = cast(identity, context, facts)             # each voter; the driver records `ballot.mark` before it sends
    found = certify({i: ballot.signature, ...}, quorum(10, 2))     # the server
    check_certificate(found, keys, quorum(10, 2), agreed(context, facts))    # whoever opens; raises, or returns nothing
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.errors import Misuse, PeerError, TooFewSurvivors, refuse, require
from protocols.identity import SIGNATURE_BYTES, BadSignature, Identity, verify

PURPOSE = "agreement v1"
_DOMAIN = b"agree v1\0"


def quorum(voters: int, corrupt: int) -> int:
    """Return floor((voters + corrupt) / 2) + 1: signatures of one digest that exclude those of another.

    voters: how many may vote. corrupt: how many of them may sign anything, in [0, voters). Raises Misuse.
    """
    require(0 <= corrupt < voters, "0 <= corrupt < voters", f"{corrupt} corrupt of {voters} voters")
    return (voters + corrupt) // 2 + 1


def tolerated(voters: int, signatures: int) -> int:
    """Return the most corrupt voters for which `signatures` are a quorum; negative if for none."""
    return 2 * signatures - voters - 1


@dataclass(frozen=True)
class _AgreedFacts(Record):
    context: bytes
    facts: dict[str, bytes]


def agreed(context: bytes, facts: Mapping[str, bytes]) -> bytes:
    """Return the digest (32 bytes) that voters sign.

    context: the session's context (32 bytes). facts: everything that decides what is opened, by name; each value
    enters as its SHA-256. Raises Misuse for no facts or another length of the context.
    """
    if len(context) != 32 or not facts:
        raise Misuse(
            f"expected a context of 32 bytes and facts to agree on, got {len(context)}, {len(facts)}"
        )
    held = {name: hashlib.sha256(value).digest() for name, value in facts.items()}
    return hashlib.sha256(_DOMAIN + _AgreedFacts(context, held).encode()).digest()


class Ballot(NamedTuple):
    """signature: 64 bytes. mark: a name for `Step.marks`; it lets a voter sign once per session, restarts included."""

    signature: bytes
    mark: str


def cast(identity: Identity, context: bytes, facts: Mapping[str, bytes]) -> Ballot:
    """Return a voter's signature of the facts, and the mark that keeps it the only one in this session."""
    return Ballot(identity.sign(PURPOSE, agreed(context, facts)), f"voted/{context.hex()}")


def check_vote(key: bytes, digest: bytes, signature: bytes, voter: str) -> None:
    """Raises PeerError naming `voter` unless it signed `digest` under `key` (Ed25519, 32 bytes)."""
    try:
        verify(key, PURPOSE, digest, signature)
    except BadSignature:
        raise PeerError(
            f"the vote of {voter} does not verify: another statement, or another key", voter
        ) from None


@dataclass(frozen=True)
class Vote(Record):
    """A voter's answer: its signature (64 bytes)."""

    signature: bytes

    def __post_init__(self) -> None:
        if len(self.signature) != SIGNATURE_BYTES:
            raise Misuse(f"signature: expected {SIGNATURE_BYTES} bytes, got {len(self.signature)}")


@dataclass(frozen=True, eq=False)
class Certificate(Record):
    """voters: uint32, strictly ascending numbers of those who signed. signatures: 64 bytes each, in that order."""

    voters: NDArray[np.uint32]
    signatures: bytes

    def __post_init__(self) -> None:
        if self.voters.dtype != np.uint32 or (self.voters[1:] <= self.voters[:-1]).any():
            raise Misuse("voters: expected strictly ascending uint32 numbers")
        if len(self.signatures) != SIGNATURE_BYTES * len(self.voters):
            raise Misuse(
                f"signatures: expected {SIGNATURE_BYTES} bytes per voter, got {len(self.signatures)}"
            )

    @functools.cached_property
    def signers(self) -> frozenset[int]:
        """Who signed."""
        return frozenset(self.voters.tolist())


def certify(votes: Mapping[int, bytes], needed: int) -> Certificate:
    """Return a certificate of the first `needed` votes (signatures by voter, each checked before).

    Raises TooFewSurvivors if fewer came.
    """
    if len(votes) < needed:
        raise TooFewSurvivors(f"agreement: expected {needed} votes, got {len(votes)}: nothing is opened")
    voters = sorted(votes)[:needed]
    return Certificate(np.array(voters, np.uint32), b"".join(votes[i] for i in voters))


def check_certificate(
    found: Certificate, keys: Mapping[int, bytes], needed: int, digest: bytes, role: str = "client"
) -> None:
    """Accept a certificate, or raise; nothing is returned that could be overlooked.

    keys: every voter's Ed25519 key (32 bytes), by number; nobody else counts. needed: the quorum. digest: from
    `agreed`, over what this party was shown. Raises ProtocolViolation naming the server for another number of
    signatures than `needed` or for a stranger's, PeerError naming the voter for one that does not verify.
    """
    if len(found.voters) != needed:
        raise refuse(f"expected a certificate of {needed} signatures, got {len(found.voters)}")
    strangers = [i for i in found.voters.tolist() if i not in keys]
    if strangers:
        raise refuse(f"{role} {strangers[0]} has no vote in this session, and signed")
    for at, i in enumerate(found.voters.tolist()):
        signature = found.signatures[SIGNATURE_BYTES * at : SIGNATURE_BYTES * (at + 1)]
        check_vote(keys[i], digest, signature, f"{role} {i}")
