"""What a client was shown of its session, which everybody who helps to open must have been shown too.

What does not belong here: shares, masks. The rules behind it are in docs/security.md.
"""

from collections.abc import Set
from dataclasses import dataclass

from protocols.agreement import Ballot, agreed, cast, check_certificate
from protocols.codec import Record
from protocols.errors import refuse
from protocols.identity import verify
from protocols.kernel import client
from protocols.session import Session
from secagg.commitments import MASK, masked_bytes, signer, view_facts
from secagg.messages import Unmask, items
from secagg.session_rules import rules_of
from secagg.signers import Signers


@dataclass(frozen=True, eq=False)
class View(Record):
    """graph_seed: the graph. dealers: with whom everybody masks, as bits. signers: whose signatures count."""

    graph_seed: bytes
    dealers: bytes
    signers: Signers

    def sign_input(self, session: Session, index: int, sign: bytes) -> bytes:
        """Return the signature that goes with a masked vector; none where nobody votes."""
        if not rules_of(session).voted:
            return b""
        return signer(sign).sign(MASK, masked_bytes(session.context, self.graph_seed, self.dealers, index))

    def vote(self, session: Session, survivors: bytes, sign: bytes) -> Ballot:
        return cast(signer(sign), session.context, view_facts(self.graph_seed, self.dealers, survivors))

    def check(self, session: Session, asked: Unmask, signers: list[int]) -> None:
        """Accept a request to open, or raise PeerError. A quorum must have signed this very view, and each of
        `signers`, the survivors whose shares the client would open, must have said with its input or by its vote that
        it masked with these dealers. In the semi-honest model nobody signs anything.
        """
        rules, keys = rules_of(session), self.signers.of(rules_of(session))
        voted, inputs = self._certified(session, asked, keys), items(asked.inputs, 64)
        silent = [j for j in signers if rules.voted and j not in voted]
        if len(inputs) != len(silent):
            raise refuse(f"expected the signed inputs of {len(silent)} survivors, got {len(inputs)}")
        for j, signature in zip(silent, inputs, strict=True):
            signed = masked_bytes(session.context, self.graph_seed, self.dealers, j)
            verify(keys[j], MASK, signed, signature, str(client(j)))

    def _certified(self, session: Session, asked: Unmask, keys: dict[int, bytes]) -> Set[int]:
        """Who signed the survivors, a quorum; nobody where there is no vote."""
        rules = rules_of(session)
        if (asked.certificate is not None) != rules.agrees:
            raise refuse("nobody signed the survivors" if rules.agrees else "signatures where nobody votes")
        if asked.certificate is None:
            return frozenset()
        voters = {j: keys[j] for j in rules.voters(self.graph_seed) if j in keys}
        digest = agreed(session.context, view_facts(self.graph_seed, self.dealers, asked.survivors))
        check_certificate(asked.certificate, voters, rules.parameters.quorum, digest)
        return asked.certificate.signers
