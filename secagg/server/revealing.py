"""Second state, where the graph is fixed by commit and reveal: the server collects everybody's part of the seed.

A part that is withheld ends the session, by name: to go on without it would let whoever withholds choose between
graphs. Nothing about any update has left by then; a retry is a new session with fresh parts.
"""

from collections.abc import Collection
from dataclasses import dataclass

from protocols.errors import ProtocolViolation, TooFewSurvivors
from protocols.kernel import Message, Step, client
from protocols.randomness import SecureRandom
from secagg.advertisement import parse
from secagg.commitments import joint_seed, part_commitment
from secagg.messages import REVEAL, Commitments, Reveal
from secagg.server.base import ServerState
from secagg.server.sharing import ServerSharing, ask_to_share


@dataclass(frozen=True, eq=False)
class ServerRevealing(ServerState):
    """keys: advertisements by client. committed: what was committed to. answers: what was revealed."""

    TAG = 33
    STAGE = REVEAL

    keys: dict[int, bytes]
    committed: Commitments
    answers: dict[int, bytes]

    def asked(self) -> Collection[int]:
        return self.keys

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, body = self.take(Reveal, answer)
        commitment = parse(self.rules, self.keys[index], str(answer.sender)).commitment
        if part_commitment(self.session.context, index, body.part) != commitment:
            raise ProtocolViolation("revealed another part than it committed to", str(answer.sender))
        self.answers[index] = body.part
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        missing = sorted(set(self.keys) - set(self.answers))
        if missing:
            who = ", ".join(str(client(i)) for i in missing[:5])
            raise TooFewSurvivors(
                f"stage {REVEAL!r}: {len(missing)} clients withheld their part of the graph's seed ({who})"
            )
        parts = b"".join(self.answers[i] for i in sorted(self.answers))
        seed = joint_seed(self.session.context, self.committed, parts)
        return ask_to_share(ServerSharing(self.session, self.keys, parts, seed, {}))
