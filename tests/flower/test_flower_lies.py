"""A server that lies about its plan: what a node believes of it, and what its own ledger says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from dp import ClientDP, Ledger
from dp.event_json import decode, from_fact
from fl import ClientEvaluation
from fl.callbacks import Callback
from fl.flower.arrays import arrays_of
from fl.flower.messages import pack, strip, unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.messages import START
from fl.round import RoundTerms
from fl.round.party_ledger import LEDGER, party_events
from protocols.identity import Identity
from protocols.layers import LocalTask, RoundFacts, RunFacts
from protocols.stack import Stack
from secagg import SecAggPlus
from tests.flower.direct import fedavg, model, play_out, rostered
from tests.flower.test_flower_apps import SITES, federation, grid_of, loader_for, serve

Before = Callable[[int, Message], Message]


def masks() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]


def amplified() -> list[Any]:
    return [ClientDP(noise_multiplier=0.5, delta=1e-5, clip=1.0, amplify=True), *masks()]


def telling(server: Identity | None, **run: Any) -> Before:
    """A server that says of the planned run what `run` says, under its own signature."""
    return saying(server, lambda terms: replace(terms, run=replace(terms.run, **run)))


def saying(
    server: Identity | None,
    change: Callable[[RoundTerms], RoundTerms],
    but: int = 0,
    renamed: tuple[str, str] = ("", ""),
) -> Before:
    """A server that tells all nodes but one other terms, under its own signature. renamed: a record's two names."""

    def before(node: int, message: Message) -> Message:
        request, frames = unpack_request(message.content, None)
        if request.header is None or node == but:
            return message
        header = replace(request.header, terms=change(request.header.terms))
        ours = pack(replace(request, header=header), frames, server)
        theirs = strip(message.content).items()
        inner = {renamed[1] if name == renamed[0] else name: record for name, record in theirs}
        return Message(RecordDict({**inner, **ours}), node, "train")

    return before


def laid_out(**layout: str) -> Callable[[RoundTerms], RoundTerms]:
    return lambda terms: replace(
        terms, origin=replace(terms.origin, layout=replace(terms.origin.layout, **layout))
    )


LIES: dict[str, tuple[Callable[[RoundTerms], RoundTerms], tuple[str, str]]] = {
    "weight": (laid_out(weight="loss"), ("", "")),
    "configuration": (laid_out(config="settings"), ("config", "settings")),
    "model": (laid_out(arrays="start"), ("arrays", "start")),
    "number": (lambda terms: replace(terms, number=2), ("", "")),
    "unplanned": (lambda terms: replace(terms, number=10_000), ("", "")),
    "rounds": (lambda terms: replace(terms, run=replace(terms.run, rounds=9)), ("", "")),
    "run": (lambda terms: replace(terms, origin=replace(terms.origin, run="another")), ("", "")),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_tells_one_node_other_terms_opens_nothing(tmp_path: Path, lie: str) -> None:
    """Each lie would let the sum be one node's own update: others weigh nothing, or train otherwise."""
    grid, arguments = rostered(tmp_path, 4, privacy_mod(masks()))
    change, renamed = LIES[lie]
    grid.before = saying(arguments["identity"], change, but=2, renamed=renamed)
    strategy = PrivateStrategy(fedavg(4), masks(), **arguments, stage_timeout=0.1, poll=0.01)
    play_out(strategy, grid, arrays_of(model()), num_rounds=3 if lie == "number" else 1)
    assert strategy.history[0].abandoned
    assert strategy.history[0].refusals.keys() == {"site-1", "site-3", "site-4"}


@pytest.mark.parametrize("lie", ["number", "unplanned", "run", "weight"])
def test_a_node_of_a_federation_takes_no_other_terms_either(tmp_path: Path, lie: str) -> None:
    before = saying(None, LIES[lie][0], but=1)
    result = serve(grid_of(tmp_path, federation, before=before), federation(), 3)
    assert result.history[0].abandoned
    assert len(result.history[0].refusals) >= 3


@pytest.mark.parametrize(
    ("option", "server"),
    [
        ("client-dp.noise_multiplier", {"noise_multiplier": 0.05}),
        ("client-dp.relation", {"noise_multiplier": 5.0, "relation": "replace"}),
        ("client-dp.clip", {"noise_multiplier": 5.0, "clip": 1000.0}),
    ],
)
def test_a_node_refuses_a_server_whose_layer_has_another_option(
    tmp_path: Path, option: str, server: dict[str, Any]
) -> None:
    own = [ClientDP(noise_multiplier=5.0, delta=1e-5), *masks()]
    grid, arguments = rostered(tmp_path, 4, privacy_mod(own), policy={"max_epsilon": 1.0})
    named: dict[str, Any] = {**arguments, "stage_timeout": 0.1, "poll": 0.01}
    strategy = PrivateStrategy(fedavg(4), [ClientDP(delta=1e-5, **server), *masks()], **named)
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    assert strategy.history[0].abandoned
    assert all(f"{option}: this node has" in why for why in strategy.history[0].refusals.values())
    assert not (tmp_path / "keys" / "site-1" / LEDGER).exists()


def test_a_node_that_says_its_weight_takes_no_other(tmp_path: Path) -> None:
    grid, arguments = rostered(tmp_path, 4, privacy_mod(masks(), weight="num-examples"))
    grid.before = saying(arguments["identity"], laid_out(weight="loss"))
    strategy = PrivateStrategy(fedavg(4), masks(), **arguments, stage_timeout=0.1, poll=0.01)
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    assert all(
        "weight: this node counts by 'num-examples'" in why for why in strategy.history[0].refusals.values()
    )


@pytest.mark.parametrize("sampling", ["poisson", "fixed", "all"])
def test_behind_the_mod_a_run_that_claims_to_sample_is_refused(tmp_path: Path, sampling: str) -> None:
    grid, arguments = rostered(tmp_path, 4, privacy_mod(amplified()), policy={"max_epsilon": 3.0})
    grid.before = telling(arguments["identity"], sampling=sampling, rate=1e-4)
    named: dict[str, Any] = {**arguments, "stage_timeout": 0.1, "poll": 0.01}
    strategy = PrivateStrategy(fedavg(4), amplified(), **named)
    play_out(strategy, grid, arrays_of(model()), num_rounds=2)
    assert all(report.abandoned for report in strategy.history)
    assert all("sampling" in why for report in strategy.history for why in report.refusals.values())
    assert not (tmp_path / "keys" / "site-1" / LEDGER).exists()


def test_what_a_node_spends_claims_nothing_of_who_was_asked() -> None:
    layer = ClientDP(epsilon=2.0, delta=1e-5, clip=1.0, amplify=True)
    run = RunFacts(rounds=5, population=100, cohort=100, sampling="poisson", rate=0.1)
    stack = Stack([layer])
    stack.plan(run)
    plan = stack.round(RoundFacts(run, 1, ("a", "b"), bytes(32)), np.zeros(1))
    (claimed,), (own,) = plan.events(("a", "b")), party_events(plan, "a")
    assert (claimed.facts["sample_rate"], own.facts["sample_rate"]) == (0.1, 1.0)
    # the noise that is really added
    assert own == replace(claimed, facts={**claimed.facts, "sample_rate": 1.0})
    assert from_fact(own).unit == "client"


def sampled(**named: Any) -> Any:
    layers = [ClientDP(noise_multiplier=4.0, delta=1e-5, clip=1.0, amplify=True)]
    return federation(layers, sampling="poisson", fraction=0.9, min_survivors=1, **named)


def test_a_federation_that_samples_costs_a_node_as_if_it_were_always_asked(tmp_path: Path) -> None:
    result = serve(grid_of(tmp_path, sampled), sampled(), 3)
    assert {event.facts["sample_rate"] for event in result.statement.events} == {0.9}
    assert any("own ledger" in note for note in result.statement.notes)
    ledgers = [Ledger(path) for path in tmp_path.glob(f"n*/{LEDGER}")]
    charged = [decode(entry.event) for ledger in ledgers for entry in ledger.entries()]
    assert charged
    assert all(event.sample_rate == 1.0 for event in charged)


class Broken(Callback):
    """A client that fails in every round, also where an evaluation asks it."""

    def on_client_begin(self, task: LocalTask, number: int) -> None:
        raise KeyError("no such column")


@pytest.mark.parametrize("evaluates", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
def test_who_failed_beside_a_secret_choice_is_not_in_the_servers_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hidden: bool, evaluates: bool
) -> None:
    """In the rounds in which a broken client was chosen its name stood there, right before "withheld"."""
    chosen = {"sampling": "poisson", "fraction": 1 - 1e-12} if hidden else {}

    def broken(**named: Any) -> Any:
        layer = ClientDP(noise_multiplier=4.0, delta=1e-5, clip=1.0, amplify=hidden)
        if not evaluates:
            return federation([layer], min_survivors=1, callbacks=[Broken()], **chosen, **named)
        wrong = {name: loader_for(name, {}) for name in SITES}
        asked = ClientEvaluation(wrong, classes=7, privacy=[layer], min_survivors=1, **chosen)
        return federation([layer], min_survivors=1, evaluation=asked, **chosen, **named)

    caplog.set_level("DEBUG", "flwr")
    serve(grid_of(tmp_path, broken), broken(), 2)
    told = [line.getMessage() for line in caplog.records if line.name == "flwr"]
    assert any("round 2" in line for line in told)
    assert any(name in line for line in told for name in SITES) is not hidden, told


@pytest.mark.parametrize(
    "lie",
    [{"sampling": "all", "rate": 1.0}, {"rate": 1e-4}, {"population": 9}, {"dropout": 0.5}, {"delta": 0.1}],
    ids=lambda lie: next(iter(lie)),
)
def test_a_node_of_a_federation_refuses_a_run_that_is_not_the_federations(
    tmp_path: Path, lie: dict[str, Any]
) -> None:
    """The round is played with noise alone: that nobody was in it is withheld, as their choice is secret. The nodes'
    own replies say why.
    """
    refused: set[int] = set()

    def after(node: int, reply: Message) -> Message:
        if reply.has_error() and f"run.{next(iter(lie))}: this node has" in reply.error.reason:
            refused.add(node)
        return reply

    grid = grid_of(tmp_path, sampled, before=telling(None, **lie), after=after)
    serve(grid, sampled(), 1)
    asked = {node for node, message in grid.log if unpack_request(message.content, None)[0].kind == START}
    assert refused == asked
    assert not list(tmp_path.glob(f"n*/{LEDGER}"))
