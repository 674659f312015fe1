"""Attacks on the holder of a CKKS key, for audits: what a server might have opened in place of the sum."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from he.audit_hooks import hooks
from he.ckks.ciphertexts import Adder, Sum, Upload, encrypt
from he.ckks.context import Context
from he.ckks.messages import KEY, HolderKeys
from he.ckks.parameters import scheme
from he.roles.messages import HOLDER, INPUT, OPEN, EncryptedInput, OpenRequest
from protocols.audit_hooks import Hooks, Tamper
from protocols.errors import SecAggError
from protocols.kernel import SERVER, Message
from protocols.session import Session


def make(protocol: Any) -> Hooks:
    """Return the hooks of a CKKSSum."""
    return hooks(partial(_oracles, protocol))


def _oracles(protocol: Any, session: Session) -> Iterator[tuple[str, Tamper]]:
    parameters = scheme(session)

    def single(view: "_View") -> Sum:
        return _sum(parameters, view.inputs[0])

    def repeated(view: "_View") -> Sum:
        return _sum(parameters, *[view.inputs[0]] * session.clients)

    def without_one(view: "_View") -> Sum:
        return _sum(parameters, *(view.inputs[i] for i in sorted(view.inputs)[1:]))

    def rerandomised(view: "_View") -> Sum:
        adder = Adder.empty(parameters)
        adder.add(view.inputs[0])
        public = Context.load(view.context, "server").public_key()
        adder.add(encrypt(np.zeros(parameters.coefficients, np.int64), parameters, public))
        return adder.finish()

    yield "one client's ciphertext", _View(single).tamper
    yield "one client's ciphertext, once for each client", _View(repeated).tamper
    yield "the sum without one client", _View(without_one).tamper
    if not protocol.shared:
        yield "one client's ciphertext, re-randomised", _View(rerandomised).tamper


def _sum(parameters: Any, *inputs: Upload) -> Sum:
    adder = Adder.empty(parameters)
    for one in inputs:
        adder.add(one)
    return adder.finish()


class _View:
    """What the server saw, and what it asks for instead."""

    def __init__(self, attack: Callable[["_View"], Sum]) -> None:
        self.attack, self.context = attack, b""
        self.inputs: dict[int, Upload] = {}

    def tamper(self, sent: Message) -> Message:
        try:
            if sent.stage == INPUT and sent.recipient == SERVER:
                self.inputs[sent.sender.number] = Upload.decode(EncryptedInput.decode(sent.body).ciphertexts)
            if sent.stage == KEY and sent.sender.role == HOLDER:
                self.context = HolderKeys.decode(sent.body).published.context
        except SecAggError:
            return sent
        if sent.stage == OPEN and sent.sender == SERVER:
            asked = OpenRequest.decode(sent.body)
            return replace(sent, body=replace(asked, ciphertexts=self.attack(self).encode()).encode())
        return sent
