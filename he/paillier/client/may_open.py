"""Client, third state (SharedByClients only): it may be asked to open the sum, once, of the survivors it agreed to.

Every client could open anything, so honest ones open only what more than half of the roster agreed to: else a server
could have one client open the sum of all and another the sum of all but one, and subtract.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.holders.opening import open_sum
from he.paillier.keyring import HolderKey
from he.paillier.messages import OPEN, OpenRequest, Survivors, decode
from he.paillier.tags import agreement, seed_in_group
from protocols.errors import ProtocolViolation
from protocols.kernel import SERVER, Left, Message, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass(frozen=True)
class MayOpen(State):
    """Opens the sum of `survivors`, at least `least`; the tags come from the secret that the clients share."""

    TAG: ClassVar[int | None] = 17

    session: Session
    index: int
    key: HolderKey = field(repr=False)
    signers: bytes
    least: int
    survivors: Survivors

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me, context = client(self.index), self.session.context
        expect(request, context, OPEN, "server", me)
        asked = decode(OpenRequest, request.body, "server")
        self._expect_majority(asked.agreed)
        if tuple(sorted(asked.tickets)) != self.survivors.clients:
            raise ProtocolViolation("expected the tickets of the survivors that were agreed to", "server")
        seeds = {index: seed_in_group(self.key.sealing, context, index) for index in asked.tickets}
        opened = open_sum(self.session, self.key, asked, seeds, self.signers, self.least)
        answer = message(context, OPEN, me, SERVER, opened.encode())
        return Step(Left(), (answer,), marks=(f"answered/{context.hex()}",))

    def _expect_majority(self, agreed: Mapping[int, bytes]) -> None:
        """Two lists never both have more than half of the roster behind them."""
        for index, mac in agreed.items():
            right = agreement(self.key.sealing, self.session.context, index, self.survivors.encode())
            if not 0 <= index < self.session.clients or not hmac.compare_digest(mac, right):
                raise ProtocolViolation(f"client {index} did not agree to these survivors", "server")
        if 2 * len(agreed) <= self.session.clients:
            raise ProtocolViolation(
                "expected more than half of the clients to agree to the survivors", "server"
            )
