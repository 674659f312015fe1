"""A ClientApp is a new process for every message, and sometimes two at once: what one node answers, and what never.

Each delivery here is a process of its own (forked), on the node's real store. Flower's transport is in the matrix.
"""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from fl.flower import mod as party
from fl.flower.arrays import arrays_of
from fl.flower.messages import unpack_answer, unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, fedavg, model, play_out, rostered

STAGES = ("advertise-keys", "share-keys", "masked-input", "unmask")
SECONDS = 120.0
FORK = multiprocessing.get_context("fork")


def layers() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0, setup="fresh")]


def stage_of(message: Message) -> str:
    return unpack_request(message.content, None)[0].stage


class Forked(DirectGrid):
    """Delivers what `twice` picks in processes of their own, several at once; keeps what they answered."""

    picked: Callable[[int, Message], bool]
    deliveries = 2
    killed = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.answers: list[RecordDict | None] = []

    def deliver(self, node: int, message: Message) -> Message | None:
        if not self.picked(node, message):
            return super().deliver(node, message)
        pipes = [FORK.Pipe(duplex=False) for _ in range(self.deliveries)]
        children = [FORK.Process(target=self._child, args=(node, message, out)) for _, out in pipes]
        for child, (_, out) in zip(children, pipes, strict=True):
            child.start()
            out.close()
        for child, (come, _) in zip(children, pipes, strict=True):
            content = None
            with suppress(EOFError):
                assert come.poll(SECONDS)
                content = come.recv()
            child.join(SECONDS)
            assert not child.is_alive()
            self.answers.append(content)
        whole = [content for content in self.answers if content is not None]
        return Message(whole[0], reply_to=message) if whole else None

    def _child(self, node: int, message: Message, out: Connection) -> None:
        if self.killed:
            party.pack = lambda *_: os._exit(9)  # everything is synced; the answer has not left
        reply = super().deliver(node, message)
        out.send(None if reply is None or reply.has_error() else reply.content)
        out.close()
        os._exit(0)


def federation(folder: Path) -> tuple[Forked, dict[str, Any]]:
    grid, arguments = rostered(folder, 4, privacy_mod(layers()))
    return Forked(grid.apps, keys=grid.keys), {**arguments, "stage_timeout": 20.0, "poll": 0.01}


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_with_the_same_message_give_one_answer(tmp_path: Path, stage: str) -> None:
    grid, arguments = federation(tmp_path)
    grid.picked = lambda node, message: node == 2 and stage_of(message) == stage
    strategy = PrivateStrategy(fedavg(4), layers(), **arguments)
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    assert sorted(content is None for content in grid.answers) == [False, True]
    (answer,) = (content for content in grid.answers if content is not None)
    assert unpack_answer(answer, None)[0].name == "site-2"
    assert strategy.history[0].survivors == ("site-1", "site-2", "site-3", "site-4")


@pytest.mark.parametrize("stage", STAGES)
def test_a_process_killed_between_sync_and_answer_never_answers(tmp_path: Path, stage: str) -> None:
    """The message comes again, to a new process, after the first one was killed: nothing that it would say leaves."""
    grid, arguments = federation(tmp_path)
    arguments["stage_timeout"] = 0.5
    grid.killed, grid.deliveries = True, 1
    held: list[tuple[int, Message]] = []

    def picked(node: int, message: Message) -> bool:
        if grid.killed and node == 2 and stage_of(message) == stage:
            held.append((node, message))
            return True
        return False

    grid.picked = picked
    strategy = PrivateStrategy(fedavg(4), layers(), **arguments)
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    assert grid.answers == [None]
    survivors = (
        ("site-1", "site-2", "site-3", "site-4") if stage == "unmask" else ("site-1", "site-3", "site-4")
    )
    assert strategy.history[0].survivors == survivors
    grid.killed = False
    reply = grid.deliver(*held[0])
    assert reply is not None
    assert reply.has_error()
