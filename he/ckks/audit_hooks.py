"""Attacks on the holder of a CKKS key, for audits: what a server might have opened in place of the sum."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

import numpy as np

from he.audit_hooks import ServerView, fewer_votes, hooks, too_few
from he.ckks.ciphertexts import Adder, Upload, encrypt
from he.ckks.keys import Context
from he.ckks.messages import KEY, HolderKeys
from he.ckks.parameters import scheme
from he.ckks.seal import SEED_BYTES
from he.roles.messages import HOLDER, OPEN, OpenRequest
from protocols.audit_hooks import Hooks, Tamper
from protocols.errors import SecAggError
from protocols.kernel import Message
from protocols.session import Session


def make(shared: bool, least: int | None) -> Hooks:
    """Return the hooks of a CKKSSum. shared: clients share the key. least: its `min_survivors`."""
    unsealed = {"nonces_are_used_once": "nothing is sealed with a nonce"} if shared else {}
    return hooks(partial(_oracles, shared, least), **unsealed)


def _oracles(shared: bool, least: int | None, session: Session) -> Iterator[tuple[str, Tamper]]:
    parameters, few = scheme(session), too_few(session, least)

    def summed(seen: ServerView, *clients: int) -> Adder:
        adder = Adder.empty(parameters)
        for index in clients:
            adder.add(Upload.decode(seen.inputs[index].ciphertexts))
        return adder

    def of(named: Callable[[ServerView], Iterable[int]]) -> Callable[[ServerView, bytes], bytes]:
        return lambda seen, honest: summed(seen, *named(seen)).finish().encode()

    def mixed(seen: ServerView, honest: bytes) -> bytes:
        """Opens where client 0's last ciphertext holds what client 1's does, unless every ciphertext is bound."""
        whole, other = summed(seen, *sorted(seen.inputs)), summed(seen, 1, *sorted(seen.inputs)[1:])
        cut = (parameters.ciphertexts - 1) * parameters.degree
        whole.first[cut:], whole.second[cut:] = other.first[cut:], other.second[cut:]
        whole.seeds[:1] = [own[:-SEED_BYTES] + other.seeds[0][-SEED_BYTES:] for own in whole.seeds[:1]]
        return whole.finish().encode()

    def rerandomised(seen: ServerView, honest: bytes) -> bytes:
        assert isinstance(seen, _PublishedView)
        adder = summed(seen, 0)
        public = Context.load(seen.context, "server").public_key()
        adder.add(encrypt(np.zeros(parameters.coefficients, np.int64), parameters, public))
        return adder.finish().encode()

    without_one = of(lambda seen: sorted(seen.inputs)[1:])
    yield "one client's ciphertext", _PublishedView(of(lambda seen: [0])).tamper
    repeated = of(lambda seen: [0] * session.clients)
    yield "one client's ciphertext, once for each client", _PublishedView(repeated).tamper
    yield "the sum without one client", _PublishedView(without_one).tamper
    yield "one client's last ciphertext in place of another's", _PublishedView(mixed).tamper
    yield (
        f"the sum of {len(few)} of {session.clients} clients",
        _PublishedView(of(lambda seen: few), few).tamper,
    )
    if shared:
        others = _PublishedView(without_one, range(1, session.clients))
        yield "the sum without one client that was agreed on, which is not named", others.tamper
        yield "the sum, with a vote less than the quorum", fewer_votes({OPEN: OpenRequest})
    if not shared:
        yield "one client's ciphertext, re-randomised", _PublishedView(rerandomised).tamper


class _PublishedView(ServerView):
    """context: what the holder published."""

    context = b""

    def tamper(self, sent: Message) -> Message:
        if sent.stage == KEY and sent.sender.role == HOLDER:
            with suppress(SecAggError):
                self.context = HolderKeys.decode(sent.body).published.context
        return super().tamper(sent)
