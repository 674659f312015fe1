"""From float tensors to masked frames and back: a torch model trained by sites over a transport of one's own.

This page is what a transport needs, and may be copied. `fl.round` knows what a round is, the protocol what its frames
are; neither does I/O. A site computes for itself what it was shown, and saves its state before an answer leaves, so
that a restarted one never answers twice. The server may do anything, for it does not sign the roster.

Layers of differential privacy go into `planned`; their price must then be charged before anything is summed, which
`fl.round.play` does around `secure_sum`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

import safetensors.torch
import torch

from examples.over_http.queues import Queues, fetch
from fl.credentials import read_public
from fl.round import (
    Broadcast,
    RoundResult,
    RoundTerms,
    Summed,
    Tree,
    contribution_of,
    mean_of,
    moved,
    new_session,
    open_round,
    reference_of,
)
from fl.round.party import RoundParty
from fl.round.party_ledger import PartyLedger
from fl.tensors import flatten_state, to_state, to_tree
from protocols import Policy
from protocols.codec import Record
from protocols.errors import Aborted, PeerError
from protocols.identity import Identity, SignedRoster
from protocols.kernel import MAGIC, Message, Step
from protocols.layers import Contribution, RoundFacts, RunFacts
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.session import Session
from protocols.stack import Stack
from protocols.store import FileStore
from protocols.summation import SecureSum, Total
from secagg import SecAgg
from secagg.credentials import Credentials

PATIENCE, SILENCE = 10.0, 60.0
"""Seconds that a stage stays open after its latest answer, and without any."""
Module = torch.nn.Module


@dataclass(frozen=True)
class Offer(Record):
    """What a site is shown of a round: the model, and what it acts on. The model alone: the run is over."""

    model: bytes
    terms: RoundTerms | None = None
    session: Session | None = None


class Rounds:
    """What the server and every site make alike. folder: holds roster.json, authority.pub, and of `site` NAME/NAME.key.

    model: a factory of the torch module; equal at all.
    """

    def __init__(self, folder: Path, model: Callable[[], Module], rounds: int, site: str = "") -> None:
        signed, pinned = SignedRoster.load(folder / "roster.json"), read_public(str(folder / "authority.pub"))
        own = {site: Identity.load(folder / site / f"{site}.key")} if site else {}
        self.sites = tuple(member.name for member in signed.verified(pinned).with_role("client"))
        self.model, self.rounds = model, rounds
        self.stack = Stack([SecAgg(threat="malicious", credentials=Credentials(signed, pinned, own))])
        dimension = sum(tensor.numel() for tensor in model().parameters())
        self.stack.plan(run := RunFacts(rounds, len(self.sites), len(self.sites), dimension=dimension))
        self.run = run

    def shown(self, number: int, weights: bytes) -> Broadcast:
        """Return what clients are shown of a round, with the digest over all of it that its session binds."""
        (module := self.model()).load_state_dict(safetensors.torch.load(weights))
        return open_round(
            self.stack, self.run, number, self.sites, reference_of(to_tree(module.state_dict())[0])
        )

    def module(self, tree: Tree, broadcast: Broadcast) -> Module:
        """Return a tree of arrays as a torch module."""
        state = (module := self.model()).state_dict()
        module.load_state_dict(to_state(tree, broadcast.reference.schema, state))
        return module


def work(
    rounds: Rounds, train: Callable[[Module], int], broadcast: Broadcast, own: RoundFacts
) -> Contribution:
    """Train from the model that was shown; return the difference, of which the layers make integers."""
    module = rounds.module(broadcast.reference.tree, broadcast)
    examples = train(module)
    trained = flatten_state(module.state_dict(), broadcast.reference.schema)
    return contribution_of(broadcast, trained, examples)


def join(rounds: Rounds, name: str, folder: Path, url: str, train: Callable[[Module], int]) -> bytes:
    """Take part as `name` until the run is over; return its model, as safetensors.

    folder: this site's own, for its state. train: the site's own loop over its own data; returns how many examples.
    """
    own = partial(work, rounds, train)
    store, index = FileStore(folder / "state", name), rounds.sites.index(name)
    policy = Policy(threat="malicious", signed_roster=True, min_survivors=3)
    party = RoundParty(name, store, PartyLedger(folder, store=store), policy, rounds.stack)
    runtime: Runtime[Any] | None = None
    while True:
        body, answers = fetch(f"{url}/{index}"), tuple[Message, ...]()
        if body and not body.startswith(MAGIC):
            offer = Offer.decode(body)
            if offer.session is None or offer.terms is None:
                return offer.model
            broadcast = rounds.shown(offer.terms.number, offer.model)
            # of what *we* were shown, or refused
            session = party.session(broadcast, offer.session, offer.terms)
            store.advance("round", session.round)  # each once, whatever the server says
            runtime = Runtime(rounds.stack.secure_sum, session, store)
            answers = runtime.begin(party.begin(broadcast, session, index, own, "over-http"))
        elif body and runtime is not None:
            answers = runtime.handle(Message.from_wire(body))
        for answer in answers:
            fetch(url, answer.to_wire())


def serve(rounds: Rounds, queues: Queues) -> Iterator[tuple[tuple[str, ...], Module]]:
    """Train over whoever joins; yield after every round who is in its sum (nobody: it was abandoned) and the model."""
    module = rounds.model()
    queues.wait_for_all(SILENCE)
    for number in range(1, rounds.rounds + 1):
        broadcast = rounds.shown(number, weights := safetensors.torch.save(module.state_dict()))
        session = new_session(rounds.stack.secure_sum, broadcast, least=3)
        queues.tell_all(Offer(weights, broadcast.terms, session).encode())
        try:
            total = secure_sum(rounds.stack.secure_sum, session, queues)
        except Aborted:  # too few were left: the model stays
            yield (), module
            continue
        survivors = tuple(rounds.sites[index] for index in total.survivors)
        mean = mean_of(broadcast, Summed(total.total, survivors), RoundResult(number, rounds.sites))
        module = rounds.module(moved(broadcast.reference, mean.vector, mean.counters), broadcast)
        yield survivors, module
    queues.tell_all(Offer(safetensors.torch.save(module.state_dict())).encode())


def secure_sum(protocol: SecureSum, session: Session, queues: Queues) -> Total:
    """Play one session. Who has not answered a stage when it closes is gone. Raises Aborted if too few are left."""

    def take(step: Step) -> Any:
        for message in step.send:
            queues.boxes[message.recipient.number].put(message.to_wire())
        return step.state

    random = SystemRandom()
    state, until = take(protocol.server(session, random=random)), time.monotonic() + SILENCE
    while not isinstance(state, Total):
        if not list(state.waiting_for()) or time.monotonic() > until:
            state, until = take(state.close(random)), time.monotonic() + SILENCE
            continue
        with suppress(Empty, PeerError):  # no answer in time; none of this stage: nothing has changed
            answer = Message.from_wire(queues.next(until))
            state, until = take(state.receive(answer, random)), time.monotonic() + PATIENCE
    return state
