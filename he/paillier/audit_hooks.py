"""Attacks on the holder of a Paillier key, for audits: what a server might have opened in place of the sum."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import gmpy2

from he.audit_hooks import hooks
from he.paillier.cipher import add, encrypt, parse, serialise
from he.paillier.messages import DECRYPT, DecryptRequest
from he.paillier.parameters import scheme
from he.paillier.randomisers import Randomisers
from he.roles.messages import INPUT, OPEN, EncryptedInput, OpenRequest
from protocols.audit_hooks import Hooks, Tamper
from protocols.errors import SecAggError
from protocols.kernel import SERVER, Message
from protocols.randomness import SystemRandom
from protocols.session import Session


def make(protocol: Any) -> Hooks:
    """Return the hooks of a PaillierSum."""
    sealed = {} if protocol.recipients else {"nonces_are_used_once": "nothing is sealed with a nonce"}
    return replace(hooks(partial(_oracles, protocol), sent=(EncryptedInput,), **sealed), corrupt=_corrupt)


def _corrupt(session: Session) -> dict[str, int]:
    """How many decryptors may work with the server."""
    return {"decryptor": scheme(session).corrupt}


def _oracles(protocol: Any, session: Session) -> Iterator[tuple[str, Tamper]]:
    public = protocol.keys.encryption

    def single(seen: dict[int, EncryptedInput], honest: bytes) -> bytes:
        return seen[0].ciphertexts

    def rerandomised(seen: dict[int, EncryptedInput], honest: bytes) -> bytes:
        values = parse(seen[0].ciphertexts, len(honest) // public.ciphertext_bytes, public)
        zeros = parse(encrypt([0] * len(values), Randomisers(public), SystemRandom()), len(values), public)
        return serialise(add(values, zeros, public), public)

    def plus_one(seen: dict[int, EncryptedInput], honest: bytes) -> bytes:
        values = parse(honest, len(honest) // public.ciphertext_bytes, public)
        n = gmpy2.mpz(public.n)
        return serialise([values[0] * (1 + n) % n**2, *values[1:]], public)

    yield "one client's ciphertext", _tamper(single)
    yield "one client's ciphertext, re-randomised", _tamper(rerandomised)
    yield "the sum plus one", _tamper(plus_one)


def _tamper(attack: Callable[[dict[int, EncryptedInput], bytes], bytes]) -> Tamper:
    seen: dict[int, EncryptedInput] = {}

    def tamper(sent: Message) -> Message:
        if sent.stage == INPUT and sent.recipient == SERVER:
            try:
                seen[sent.sender.number] = EncryptedInput.decode(sent.body)
            except SecAggError:
                return sent
        if sent.sender != SERVER:
            return sent
        if sent.stage == OPEN:
            asked = OpenRequest.decode(sent.body)
            return replace(sent, body=replace(asked, ciphertexts=attack(seen, asked.ciphertexts)).encode())
        if sent.stage == DECRYPT:  # decryptors add by themselves: the server can only change what they add
            asked_for = DecryptRequest.decode(sent.body)
            first = asked_for.inputs[0]
            forged = replace(first, ciphertexts=attack(seen, first.ciphertexts))
            return replace(sent, body=replace(asked_for, inputs={0: forged}).encode())
        return sent

    return tamper
