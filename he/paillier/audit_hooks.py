"""Attacks on the holder of a Paillier key, for audits: what a server might have opened in place of the sum."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from gmpy2 import mpz

from he.audit_hooks import ServerView, fewer_votes, hooks, too_few
from he.paillier.cipher import add, add_all, encrypt, parse, serialise
from he.paillier.keys import PublicKey
from he.paillier.messages import DECRYPT, PURPOSE, DecryptRequest, Ticket
from he.paillier.parameters import scheme
from he.paillier.randomisers import Randomisers
from he.roles.messages import OPEN, EncryptedInput, OpenRequest
from he.roles.scheme import parameters
from protocols.audit_hooks import Hooks, Tamper
from protocols.identity import Identity
from protocols.kernel import SERVER, Message
from protocols.randomness import SystemRandom
from protocols.session import Session


def make(
    encryption: Callable[[], PublicKey],
    boxes: bool,
    least: int | None,
    signer: Callable[[str, str], Identity | None],
) -> Hooks:
    """Return the hooks of a PaillierSum. encryption: gives its key. boxes: a holder seals the total to clients. least:
    its `min_survivors`. signer: who signs, by name and role.
    """
    sealed = {} if boxes else {"nonces_are_used_once": "nothing is sealed with a nonce"}
    found = hooks(partial(_oracles, encryption, least), **sealed)
    return replace(found, corrupt=_corrupt, claimed=partial(_claimed, signer))


def _claimed(
    signer: Callable[[str, str], Identity | None], session: Session, own: Message, other: Message
) -> Message:
    """Another client's ciphertexts, under one's own signature."""
    sent, index = EncryptedInput.decode(other.body), own.sender.number
    ticket, me = Ticket.decode(sent.ticket), signer(session.roster[index], "client")
    signature = me.sign(PURPOSE, ticket.signed(session, index)) if me else b""
    claimed = replace(sent, ticket=replace(ticket, signature=signature).encode())
    return replace(own, body=claimed.encode())


def _corrupt(session: Session) -> dict[str, int]:
    """How many decryptors may work with the server."""
    return {"decryptor": scheme(session).corrupt}


def _oracles(
    encryption: Callable[[], PublicKey], least: int | None, session: Session
) -> Iterator[tuple[str, Tamper]]:
    public, few = encryption(), too_few(session, least)

    def parsed(data: bytes) -> list[mpz]:
        return parse(data, len(data) // public.ciphertext_bytes, public)

    def single(seen: ServerView, honest: bytes) -> bytes:
        return seen.inputs[0].ciphertexts

    def of(some: range, seen: ServerView, honest: bytes) -> bytes:
        return serialise(add_all((parsed(seen.inputs[i].ciphertexts) for i in some), public), public)

    def rerandomised(seen: ServerView, honest: bytes) -> bytes:
        values = parsed(single(seen, honest))
        zeros = parsed(encrypt([0] * len(values), Randomisers(public), SystemRandom()))
        return serialise(add(values, zeros, public), public)

    def plus_one(seen: ServerView, honest: bytes) -> bytes:
        values, n = parsed(honest), mpz(public.n)
        return serialise([values[0] * (1 + n) % n**2, *values[1:]], public)

    yield "one client's ciphertext", _DecryptorsView(single).tamper
    yield "one client's ciphertext, re-randomised", _DecryptorsView(rerandomised).tamper
    yield "the sum plus one", _DecryptorsView(plus_one).tamper
    yield f"the sum of {len(few)} of {session.clients} clients", _DecryptorsView(partial(of, few), few).tamper
    if not parameters(session).holder:
        others = range(1, session.clients)
        story = "the sum without one client that was agreed on, which is not named"
        yield story, _DecryptorsView(partial(of, others), others).tamper
        asked = fewer_votes({OPEN: OpenRequest, DECRYPT: DecryptRequest})
        yield "the sum, with a vote less than the quorum", asked


class _DecryptorsView(ServerView):
    """Decryptors add by themselves: a server can only change what they add."""

    def tamper(self, sent: Message) -> Message:
        if sent.stage != DECRYPT or sent.sender != SERVER:
            return super().tamper(sent)
        asked = DecryptRequest.decode(sent.body)
        if self.named is not None:
            return replace(
                sent, body=replace(asked, inputs={i: asked.inputs[i] for i in self.named}).encode()
            )
        first = asked.inputs[0]
        forged = replace(first, ciphertexts=self.attack(self, first.ciphertexts))
        return replace(sent, body=replace(asked, inputs={0: forged}).encode())
