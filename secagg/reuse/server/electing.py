"""On sparse graphs: the committee signs who survived, as all do where keys are fresh."""

from dataclasses import dataclass
from typing import ClassVar

from protocols.agreement import certify
from protocols.kernel import Step
from protocols.randomness import SecureRandom
from secagg.reuse.server.kept import Kept
from secagg.reuse.server.releasing import ask_to_release
from secagg.server.voting import Voting


@dataclass(frozen=True, eq=False)
class Electing(Voting):
    """arrived: deposits, by client."""

    TAG: ClassVar[int | None] = 55

    arrived: dict[int, Kept]  # type: ignore[assignment]  # a deposit is an input, and nothing is put in here

    def close(self, random: SecureRandom) -> Step:
        certificate = certify(self.votes, self.rules.parameters.quorum)
        return ask_to_release(self.session, self.facts, self.total, self.arrived, certificate)
