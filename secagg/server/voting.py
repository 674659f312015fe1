"""Fifth state, outside the semi-honest model: the server collects signatures of who survived, until they are a quorum.

The survivors stay what they are, whoever leaves now.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass

from protocols.agreement import Vote, agreed, certify, check_vote
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.advertisement import signing_key
from secagg.commitments import view_facts
from secagg.messages import CONFIRM
from secagg.server.base import Input, SumState
from secagg.server.opening import ask_to_unmask


@dataclass(frozen=True, eq=False)
class ServerVoting(SumState):
    """bits: the survivors, as they were shown. answers: signatures by client."""

    TAG = 36
    STAGE = CONFIRM

    arrived: dict[int, Input]
    bits: bytes
    answers: dict[int, bytes]

    def asked(self) -> Collection[int]:
        return [i for i in self.rules.voters(self.facts.graph_seed) if i in self.arrived]

    @functools.cached_property
    def _digest(self) -> bytes:
        """What voters sign."""
        return agreed(self.session.context, view_facts(self.facts.graph_seed, self.places.bits, self.bits))

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, vote = self.take(Vote, answer)
        key = signing_key(self.rules, index, self.facts.keys[index])
        check_vote(key, self._digest, vote.signature, str(answer.sender))
        self.answers[index] = vote.signature
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        certificate = certify(self.answers, self.rules.parameters.quorum)
        return ask_to_unmask(self.session, self.facts, self.total, self.arrived, certificate)
