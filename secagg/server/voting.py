"""Fifth state, outside the semi-honest model: the server collects the survivors' signatures of who survived."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.advertisement import parse
from secagg.commitments import VOTE, check_signature, vote_bytes
from secagg.messages import CONFIRM, Indices, Vote
from secagg.server.base import Facts, ServerState
from secagg.server.opening import ask_to_unmask


@dataclass(frozen=True, eq=False)
class Voting(ServerState):
    """bits: the survivors, as they were shown. votes: signatures by client."""

    TAG: ClassVar[int | None] = 36
    STAGE: ClassVar[str] = CONFIRM

    facts: Facts
    total: NDArray[np.unsignedinteger[Any]]
    arrived: dict[int, Indices]
    bits: bytes
    votes: dict[int, bytes]

    def asked(self) -> Collection[int]:
        return self.arrived

    def answered(self) -> Collection[int]:
        return self.votes

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, vote = self.take(Vote, answer)
        who = str(answer.sender)
        key = parse(self.rules, self.facts.keys[index], who).sign_key
        signed = vote_bytes(self.session.context, self.facts.graph_seed, self.bits)
        check_signature(key, VOTE, signed, vote.signature, who)
        self.votes[index] = vote.signature
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        self.enough()
        return ask_to_unmask(self.session, self.facts, self.total, self.arrived, self.votes)
