"""What homomorphic sums tell an audit about themselves. What does not belong here: properties (`protocols.audit`).

An audit uses this to look deeper; no protocol code does.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from he.roles.messages import INPUT, OPEN, EncryptedInput, OpenRequest
from he.roles.scheme import least_survivors
from protocols.agreement import Certificate
from protocols.audit_hooks import Hooks, Tamper
from protocols.errors import SecAggError
from protocols.kernel import SERVER, Message
from protocols.session import Session

NO_MASKS = "inputs are encrypted, not masked: there are no ring elements, seeds or mask streams"
INAPPLICABLE = {
    **dict.fromkeys(
        (
            "uniform-over-the-ring",
            "fresh-masks",
            "context-enters-masks",
            "stream-is-uniform",
            "views-indistinguishable",
            "masked-after-unmasking",
            "hidden-from-insiders",
            "hidden-in-its-component",
            "seeds-carry-full-entropy",
            "streams-do-not-collide",
        ),
        NO_MASKS,
    ),
    "secrets-are-drawn-in-full": "the randomness of encryption cannot be injected",
    "view-depends-on-the-sum-only": "the randomness of encryption cannot be injected; see `randomised`",
    "plans-fail-as-rarely-as-promised": "nothing is drawn at random among the parties",
    "stale-shares-refused": "clients deal no shares of secrets",
    "shares-are-sealed": "clients deal no shares of secrets",
    **dict.fromkeys(
        ("no-split-opens-few", "no-offer-opens-few"),
        "no shares of clients' secrets are opened by views; see no-schedule-tells-two-sums",
    ),
    "forged-requests-refused": "clients are asked for their input; for holders see no-decryption-oracle",
    "cheating-clients-are-named": "a client answers with its ciphertext alone; see garbled-answers-are-named",
}


Oracles = Callable[[Session], Iterable[tuple[str, Tamper]]]
_BEFORE_INPUT = ("join", INPUT)


def tolerated(session: Session, gone: Mapping[str, set[int]]) -> bool | None:
    """A total is promised over the least that is opened; where clients open it too, whether enough did is not said."""
    sent = set(range(session.clients))
    for stage in _BEFORE_INPUT:
        sent -= gone.get(stage, set())
    if len(sent) < max(2, least_survivors(session)):
        return False
    later = any(who for stage, who in gone.items() if stage not in _BEFORE_INPUT)
    return None if later else True


def hooks(oracles: Oracles, **inapplicable: str) -> Hooks:
    """Return the hooks of a homomorphic sum: attacks on whoever holds the key, records made for the wire."""
    named = {key.replace("_", "-"): why for key, why in inapplicable.items()}
    return Hooks(
        tolerated=tolerated, oracles=oracles, sent=(EncryptedInput,), inapplicable={**INAPPLICABLE, **named}
    )


def too_few(session: Session, chosen: int | None) -> range:
    """The most clients over whom no total may be opened. chosen: `min_survivors` of the sum."""
    return range((chosen or session.clients // 2 + 1) - 1)


def fewer_votes(kinds: Mapping[str, type[Any]]) -> Tamper:
    """The request to open with a vote less than the quorum. kinds: of requests that have a certificate, by stage."""

    def tamper(sent: Message) -> Message:
        if sent.stage not in kinds or sent.sender != SERVER:
            return sent
        asked = kinds[sent.stage].decode(sent.body)
        found = asked.certificate
        fewer = Certificate(
            found.voters[:-1], found.signatures[: -len(found.signatures) // len(found.voters)]
        )
        return replace(sent, body=replace(asked, certificate=fewer).encode())

    return tamper


class ServerView:
    """What a server saw of a session; `attack` makes what it wants opened of that and of the honest sum.

    named: the clients that it names (None: all whose contribution is in the honest sum).
    """

    def __init__(
        self, attack: Callable[["ServerView", bytes], bytes], named: Iterable[int] | None = None
    ) -> None:
        self.attack, self.named = attack, None if named is None else tuple(named)
        self.inputs: dict[int, EncryptedInput] = {}

    def tamper(self, sent: Message) -> Message:
        """Pass a message on; the request to open is replaced."""
        if sent.stage == INPUT and sent.recipient == SERVER:
            with suppress(SecAggError):
                self.inputs[sent.sender.number] = EncryptedInput.decode(sent.body)
        if sent.stage == OPEN and sent.sender == SERVER:
            asked = OpenRequest.decode(sent.body)
            named = asked.tickets if self.named is None else self.named
            tickets = {i: asked.tickets[i] for i in named}
            forged = replace(asked, ciphertexts=self.attack(self, asked.ciphertexts), tickets=tickets)
            return replace(sent, body=forged.encode())
        return sent
