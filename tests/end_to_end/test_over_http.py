"""A model trained over plain HTTP by real processes is the model of the same rounds in memory, bit for bit."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from examples.over_http.__main__ import ROUNDS, SITES, make_keys, make_model, train
from examples.over_http.queues import fetch
from examples.over_http.training import Rounds, work
from fl.account import Account
from fl.engines.memory import MemoryEngine
from fl.round import Mean, moved, open_round, play, reference_of
from fl.tensors import to_tree
from protocols import PlainSum
from protocols.layers import Contribution
from protocols.session import Session
from protocols.stack import Stack
from protocols.summation import SecureSum
from tests.programs import Program

LAST, AWAY = SITES[-1], ROUNDS


def start(folder: Path, *arguments: str) -> Program:
    return Program("examples.over_http", *arguments, folder=folder)


def leaving(
    number: int, protocol: SecureSum, session: Session
) -> tuple[Sequence[str], dict[str, Sequence[str]]]:
    gone = [LAST] if number == AWAY else []
    return gone, {protocol.stages(session)[0].name: gone}


def in_memory(folder: Path) -> torch.nn.Module:
    """The same rounds in this process, without masks."""
    rounds = Rounds(folder, make_model, ROUNDS)
    stack, module = Stack([PlainSum()]), make_model()
    stack.plan(rounds.run)
    for number in range(1, ROUNDS + 1):
        shown = open_round(stack, rounds.run, number, SITES, reference_of(to_tree(module.state_dict())[0]))
        trees = []

        def trained(broadcast, own) -> Contribution:
            return work(rounds, partial(train, own.client), broadcast, own)

        def take(means: tuple[Mean, ...], shown=shown, trees=trees) -> None:
            trees.append(moved(shown.reference, means[0].vector, means[0].counters))

        engine = MemoryEngine(stack.secure_sum, trained, departures=partial(leaving, number))
        play([shown], engine, stack, Account(stack.layers), take=take)
        module = rounds.module(trees[0], shown)
    return module


def test_a_model_trained_over_plain_http_is_that_of_the_rounds_in_memory_bit_for_bit(tmp_path: Path) -> None:
    make_keys(tmp_path)
    server = start(tmp_path, "serve", str(tmp_path))
    url = server.line()
    joining = [start(tmp_path, "join", str(tmp_path), name, url) for name in SITES[:-1]]
    joining.append(start(tmp_path, "join", str(tmp_path), LAST, url, str(AWAY)))  # dies in the last round
    for body in (b"", b"SAG1", b"no frame at all", bytes(5000)):  # a stranger's, which change nothing
        fetch(url, body)
    ends = [process.end() for process in (server, *joining)]
    assert [end.returncode for end in ends] == [0] * (1 + len(SITES)), ends
    everybody = ", ".join(SITES)
    assert [line.partition(";")[0] for line in ends[0].stdout.splitlines()[1:]] == [
        f"round 1: the sum of {everybody}",
        f"round 2: the sum of {everybody}",
        f"round 3: the sum of {', '.join(SITES[:-1])}",
    ]
    expected = in_memory(tmp_path).state_dict()
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name
