"""How those who open agree on the contributions first, or a server would have two sums opened that differ by one
client. What does not belong here: quorums and certificates (`protocols.agreement`), who opens.

What is agreed on is the list of all contributions, by the digests of their tickets. Voters are decryptors, with keys
that the dealer gave them, or the clients that share a key, with keys that they derive from it.
"""

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from he.roles.messages import AGREE, Listed
from he.roles.scheme import expect_clients
from he.sealing import derive
from protocols.agreement import Ballot, Certificate, Vote, agreed, cast, check_certificate, quorum
from protocols.errors import refuse
from protocols.identity import Identity
from protocols.kernel import Message
from protocols.roles import Asked


def voter(seed: bytes, name: str) -> Identity:
    """Return the voter that 32 uniform secret bytes stand for."""
    return Identity(name, Ed25519PrivateKey.from_private_bytes(seed))


def client_voter(secret: bytes, context: bytes, index: int) -> Identity:
    """Return client `index` as a voter of this session, from what the clients share."""
    return voter(derive(secret, context, f"vote {index}"), f"client {index}")


def vote(identity: Identity, context: bytes, listed: Listed) -> Ballot:
    """Sign the list of contributions, once per session."""
    return cast(identity, context, _facts(listed))


def answered(
    state: Asked, request: Message, identity: Identity, own: Listed | None = None
) -> tuple[Listed, tuple[Message], str]:
    """Return the list that a voter is asked about, its vote for it, and the mark that keeps the vote the only one.

    own: what the list must hold. Raises PeerError for another request.
    """
    listed = state.take(Listed, request, AGREE)
    expect_clients(state.session, listed.tickets)
    if own and not own.tickets.items() <= listed.tickets.items():
        raise refuse("expected this client's own contribution in the sum")
    ballot = vote(identity, state.session.context, listed)
    return listed, state.answer(Vote(ballot.signature), AGREE), ballot.mark


def digest(context: bytes, listed: Listed) -> bytes:
    """Return what voters sign (32 bytes)."""
    return agreed(context, _facts(listed))


def expect_agreement(
    context: bytes,
    listed: Listed,
    found: Certificate | None,
    keys: Mapping[int, bytes],
    corrupt: int,
    role: str,
) -> None:
    """The one place where whoever opens insists that no other list can be opened. Raises PeerError.

    keys: all voters', by number; at most `corrupt` of them sign more than one list.
    """
    if found is None:
        raise refuse("expected a certificate that the voters agreed to these contributions")
    check_certificate(found, keys, quorum(len(keys), corrupt), digest(context, listed), role)


def _facts(listed: Listed) -> dict[str, bytes]:
    return {"contributions": listed.encode()}
