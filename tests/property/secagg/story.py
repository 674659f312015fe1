"""A server that tells every client its own story: dealers, survivors and who voted; and what it then opens.

The clients are the real ones. The server keeps to a certificate where it can make one, else it sends what signatures it
has.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from protocols.agreement import Vote, cast, certify
from protocols.codec import Record
from protocols.errors import SecAggError
from protocols.kernel import SERVER, Message, Step
from protocols.protocol import ClientStart
from protocols.roles import read
from protocols.summation import IntVector
from secagg import SecAggPlus
from secagg.audit_hooks import stripped
from secagg.client.joining import join
from secagg.client.masking import Masking
from secagg.commitments import MASK, masked_bytes, signer, view_facts
from secagg.graph import permutation
from secagg.mask_parameters import MaskParameters
from secagg.messages import (
    CONFIRM,
    INPUT,
    UNMASK,
    Delivery,
    Masked,
    Opened,
    Survivors,
    Unmask,
    items,
    pack_bits,
)
from secagg.session_rules import rules_of
from tests.property.secagg.play import Play, with_body


class Given(SecAggPlus):
    """A masked sum with the very parameters that a test gives."""

    def __init__(self, made: MaskParameters) -> None:
        super().__init__(threat=made.threat)
        self.made = made

    def parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> MaskParameters:
        return self.made

    def _client(self, start: ClientStart[IntVector]) -> Step:
        """These clients have no plan of their own to hold the session to."""
        return join(start, None)


class Story:
    """dealers, survivors: what each client is shown; everybody, unless a test says otherwise. ring: the clients in
    the graph's order. corrupt: clients that sign every view.
    """

    def __init__(self, play: Play) -> None:
        self.play, self.rules = play, rules_of(play.session)
        self.transcript: list[Message] = []
        while play.queue[0].stage != INPUT:
            self.transcript += play.queue
            play.trip()
        self.transcript += play.answers
        self.requests = play.queue
        self.seed = play.server.facts.graph_seed  # type: ignore[attr-defined]  # the state that waits for inputs
        n = self.rules.clients
        self.ring = permutation(self.seed, n).tolist()
        self.around = {i: set(self.rules.neighbours(i, self.seed)) for i in range(n)}
        self.dealers: dict[int, Collection[int]] = dict.fromkeys(range(n), frozenset(range(n)))
        self.survivors: dict[int, Collection[int]] = dict.fromkeys(range(n), frozenset(range(n)))
        self.keys = {i: state.keys.sign for i, state in play.clients.items() if isinstance(state, Masking)}
        self.corrupt: set[int] = set()
        self.votes: dict[int, bytes] = {}
        self.inputs: dict[int, bytes] = {}
        self.opened: dict[int, Opened] = {}

    def tell(self) -> None:
        """Play it, from the masked vectors to the last answer."""
        for m in self._send(self._delivery(m) for m in self.requests):
            self.inputs[m.sender.number] = read(Masked, m).signature
        bits = {i: Survivors(self._bits(self.survivors[i])) for i in self.inputs}
        for m in self._ask(CONFIRM, bits):
            self.votes[m.sender.number] = read(Vote, m).signature
        for m in self._ask(UNMASK, {i: self._unmask(i) for i in self.inputs}):
            self.opened[m.sender.number] = read(Opened, m)

    def sum_of(self, some: Collection[int]) -> list[int]:
        """The sum of these clients' vectors after everything that the server could open was taken off; nothing if
        one of them never sent its vector.
        """
        left, ring = stripped(self.play.session, self.transcript, {}), self.rules.ring
        if not set(some) <= set(left):
            return []
        total = np.sum([left[i] for i in some], axis=0, dtype=np.uint64)
        return ring.centred(total.astype(ring.dtype)).tolist()

    def shares_of(self, client: int) -> tuple[int, int]:
        """How many shares of a client's self-mask seed and of its mask key were opened."""
        told = [client in self.survivors[i] for i, said in self.opened.items() if client in said.owners]
        return told.count(True), told.count(False)

    def _delivery(self, m: Message) -> Message:
        told, me = read(Delivery, m), m.recipient.number
        keep = [j in self.dealers[me] for j in sorted(self.around[me])]
        boxes, digests = (
            [item for item, kept in zip(items(blob, len(blob) // len(keep)), keep, strict=True) if kept]
            for blob in (told.boxes, told.digests)
        )
        return with_body(m, Delivery(self._bits(self.dealers[me]), b"".join(boxes), b"".join(digests)))

    def _unmask(self, i: int) -> Unmask:
        mine = (self.dealers[i], self.survivors[i])
        same = {j: s for j, s in self.votes.items() if (self.dealers[j], self.survivors[j]) == mine}
        told = {j: self._as_corrupt(j, *mine) for j in self.corrupt}
        same |= {j: vote for j, (vote, _) in told.items()}
        certificate = certify(same, min(self.rules.parameters.quorum, len(same)))
        voted = set(certificate.voters.tolist())
        inputs = self.inputs | {j: signed for j, (_, signed) in told.items()}
        silent = [inputs.get(j, bytes(64)) for j in sorted(self.around[i]) if j in mine[1] and j not in voted]
        return Unmask(self._bits(mine[1]), certificate, b"".join(silent))

    def _as_corrupt(
        self, i: int, dealers: Collection[int], survivors: Collection[int]
    ) -> tuple[bytes, bytes]:
        """The vote and the signed input of a corrupt client, for whatever view."""
        context, key = self.play.session.context, signer(self.keys[i])
        facts = view_facts(self.seed, self._bits(dealers), self._bits(survivors))
        signed = masked_bytes(context, self.seed, self._bits(dealers), i)
        return cast(key, context, facts).signature, key.sign(MASK, signed)

    def _bits(self, some: Collection[int]) -> bytes:
        return pack_bits(some, self.rules.clients)

    def _ask(self, stage: str, bodies: Mapping[int, Record]) -> list[Message]:
        base = self.requests[0]
        return self._send(
            replace(with_body(base, body), stage=stage, recipient_index=i) for i, body in bodies.items()
        )

    def _send(self, sent: Iterable[Message]) -> list[Message]:
        found: list[Message] = []
        for m in sent:
            assert m.sender == SERVER
            self.transcript.append(m)
            try:
                found += self.play.tell(m)
            except SecAggError as error:
                self.play.refused[m.recipient.number] = error
        self.transcript += found
        return found
