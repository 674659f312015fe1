"""The key holder before it holds a sum's key: it makes the session's keys and gives them to the clients that
joined. What does not belong here: opening (`he.roles.holder`, `whole_key`).

A fresh key for every session: what is asked, answered or refused in one session tells nothing about another.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from he.ckks.messages import HOLDER_PURPOSE, JOIN_PURPOSE, KEY, HolderKeys, Join, Joined, Published
from he.ckks.whole_key import CKKSHeldKey, Secrets
from he.roles.holder import KEY_HOLDER, HoldsKey
from he.roles.messages import HOLDER, decode
from he.sealing import agree, seal
from protocols.errors import PolicyRefusal, ProtocolViolation
from protocols.identity import Identity, verify
from protocols.kernel import SERVER, Message, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


def published(secrets: Secrets, session: Session, identity: Identity | None) -> Published:
    """Return the public part, signed if the holder has an identity."""
    unsigned = Published(secrets.keys.dump(), secrets.public, b"")
    if identity is None:
        return unsigned
    return replace(unsigned, signature=identity.sign(HOLDER_PURPOSE, unsigned.signed(session.context)))


@dataclass(frozen=True)
class MadeKeys(State):
    """Waits for the clients' keys; then gives every client its box.

    signers: the clients' signing keys in roster order, 32 bytes each; empty if nobody signs.
    """

    TAG: ClassVar[int | None] = 26

    session: Session
    least: int
    signers: bytes
    secrets: Secrets
    published: Published

    def receive(self, request: Message, random: SecureRandom) -> Step:
        context = self.session.context
        expect(request, context, KEY, "server", KEY_HOLDER)
        clients = self._clients(decode(Joined, request.body, "server"))
        plain, boxes = self.secrets.check_key + self.published.digest, {}
        for index, key in clients.items():
            box_key = agree(self.secrets.private, key, context, "to client", str(client(index)))
            boxes[index] = seal(box_key, plain, context, HOLDER, random)
        body = HolderKeys(self.published, boxes).encode()
        holding = HoldsKey(self.session, self.least, CKKSHeldKey(clients, self.secrets))
        return Step(holding, (message(context, KEY, KEY_HOLDER, SERVER, body),))

    def _clients(self, joined: Joined) -> dict[int, bytes]:
        """Return the keys of those who joined. Raises PeerError for one that may not, PolicyRefusal for too
        few.
        """
        for index, join in joined.clients.items():
            if not 0 <= index < self.session.clients:
                raise ProtocolViolation("a client that is not on the roster joined", "server")
            if self.signers:
                signed = Join.signed(self.session.context, index, join.key)
                verify(self.signers[32 * index : 32 * index + 32], JOIN_PURPOSE, signed, join.signature)
        keys = {index: join.key for index, join in joined.clients.items()}
        if len(set(keys.values())) != len(keys):
            raise ProtocolViolation("two clients joined with one key", "server")
        if len(keys) < self.least:
            raise PolicyRefusal(
                f"contributions: at least {self.least} are demanded, {len(keys)} clients joined"
            )
        return keys
