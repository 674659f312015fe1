"""What is released beside the model and what moves the model beside its steps: checks, each True for sound code."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from dp.sample.errors import UnaccountedStep
from fl import ClientEvaluation, Federation
from fl.callbacks import Callback
from fl.seeds import seeded
from protocols.errors import Misuse
from protocols.layers import LocalTask
from secagg import SecAgg
from tests.defects.dp.account_rig import federation

SIZES = (8, 8, 8)


class _WarmStart(Callback):
    """The bias begins, or ends, where the client's own data says."""

    def __init__(self, begins: bool) -> None:
        self.begins = begins

    def on_client_begin(self, task: LocalTask, number: int) -> None:
        self._move(task, self.begins)

    def on_client_end(self, task: LocalTask, number: int, metrics: Mapping[str, float]) -> None:
        self._move(task, not self.begins)

    def _move(self, task: LocalTask, now: bool) -> None:
        with torch.no_grad():
            task.model.bias += float(now)


def hooks_move_no_model() -> bool:
    """A client's hook, before training and after, beside a layer that clips the rows of single examples."""
    for begins in (True, False):
        run = federation([SampleDP(noise_multiplier=1.0, delta=1e-3)], SIZES, callbacks=[_WarmStart(begins)])
        try:
            run.fit(1)
        except UnaccountedStep:
            continue
        return False
    return True


def an_evaluation_tells_the_server_no_more_than_the_run() -> bool:
    """The server would add the noise of an evaluation in a run whose line holds against the server."""
    data = federation([], SIZES).setup
    own: Any = ClientEvaluation(
        {name: data.loader_for(name) for name in data.names},
        classes=2,
        privacy=[ClientDP(noise_multiplier=1.0), SecAgg()],
    )
    try:
        federation([SampleDP(noise_multiplier=1.0, delta=1e-3)], SIZES, evaluation=own)
    except Misuse as error:
        return "holds against the server" in str(error)
    return False


def an_evaluation_is_counted_against_whoever_sees_it() -> bool:
    """It holds against the server too; the public of the training's line sees it as well."""
    data = federation([], SIZES).setup
    clients = {name: data.loader_for(name) for name in data.names}
    own: Any = ClientEvaluation(clients, classes=2, privacy=[LocalDP(noise_multiplier=1.0)])
    lines = federation([ClientDP(noise_multiplier=20.0)], SIZES, evaluation=own).fit(1).guarantees
    return lines[0].adversary == "clients" and lines[0].epsilon > lines[1].epsilon


def a_client_knows_its_own_share() -> bool:
    """One share less is priced than three clients add, without a secure sum and behind one that withstands nobody."""
    for after in ([], [SecAgg(collusion=0.0)]):
        run = federation([DistributedDP(noise_multiplier=1.0), *after], SIZES)
        run.fit(1)
        if run.account.events[0].facts["shares"] >= len(SIZES):
            return False
    return True


def a_loops_draws_follow_no_seed() -> bool:
    """torch's generator takes 32 bits of a seed: whoever tries them all knows the masks."""
    with seeded(None):
        words = torch.get_rng_state()
        return not torch.equal(words, torch.Generator().manual_seed(torch.initial_seed()).get_state())


def a_forked_seed_is_seen() -> bool:
    """It is put back before the loop ends."""

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for x, y in loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()

    given = federation([], SIZES).setup
    data = {name: given.loader_for(name) for name in given.names}
    layer = SampleDP(noise_multiplier=1.0, delta=1e-3)
    try:
        Federation(given.model, data, train, privacy=[layer], criterion=torch.nn.CrossEntropyLoss).fit(1)
    except UnaccountedStep:
        return True
    return False


def what_a_loop_draws_is_secret() -> bool:
    """Dropout by the run's public seed: who knows the masks of all examples sees one more shift them all."""
    found = []
    for _ in range(2):
        drawn: list[float] = []

        def train(model: Any, loader: Any, optimizer: Any, criterion: Any, drawn: Any = drawn) -> None:
            held_by_no_check = torch.empty(()).exponential_()
            drawn += [float(held_by_no_check), float(np.random.random()), random.random()]
            for x, y in loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()

        layer = SampleDP(noise_multiplier=1.0, delta=1e-3)
        clients = federation([], SIZES).setup
        data = {name: clients.loader_for(name) for name in clients.names}
        Federation(
            clients.model, data, train, privacy=[layer], criterion=torch.nn.CrossEntropyLoss, seed=0
        ).fit(1)
        found.append(drawn)
    return bool(found[0]) and not set(found[0]) & set(found[1])
