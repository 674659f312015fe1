"""A strategy that broadcasts, weighs, counts, sends blocks and keeps state, and entries that stay local, on Flower."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message, RecordDict

from dp import ClientDP
from fl import FedAdp, FedDyn, Federation, FedNova, Scaffold
from fl.flower.messages import pack, unpack_request
from fl.network.server_state import AskedRound, ServerFacts
from fl.network.site import load_site
from protocols.store import MemoryStore
from secagg import SecAgg
from tests.flower.test_flower_apps import federation, grid_of, same, serve
from tests.toys.clusters import Clusters
from tests.toys.controlled import Controlled


def make() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Linear(3, 2))


def controlled() -> Federation:
    return federation(strategy=Controlled())


def test_a_strategy_that_does_everything_gives_the_model_of_the_run_in_memory(tmp_path: Path) -> None:
    own = controlled()
    result = serve(grid_of(tmp_path, controlled), own, 3)
    expected = controlled().fit(3)
    assert [entry.abandoned for entry in result.history] == [None] * 3
    assert same(result.model, expected.model)
    means = own.setup.strategy.means  # type: ignore[attr-defined]
    assert [mean.blocks["control"][0] for mean in means] == pytest.approx([1, 2, 3], abs=0.01)


def test_a_server_that_goes_on_still_agrees_with_its_clients_on_their_state(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, controlled)
    serve(grid, federation(strategy=Controlled(), output=tmp_path / "run"), 2)
    own = federation(strategy=Controlled(), output=tmp_path / "run")
    result = serve(grid, own, 3)
    assert [entry.abandoned for entry in result.history] == [None] * 3
    (mean,) = own.setup.strategy.means  # type: ignore[attr-defined]
    assert mean.blocks["control"][0] == pytest.approx(3, abs=0.01)


def test_a_second_run_on_the_same_sites_begins_anew(tmp_path: Path) -> None:
    """What clients keep is of one run: another one, with a folder of its own, neither reads nor trips over it."""
    for seed in (1, 2):  # the same update is never sent twice

        def seeded(seed: int = seed, **named: Any) -> Federation:
            return federation(strategy=Controlled(), seed=seed, **named)

        own = seeded(output=tmp_path / f"run-{seed}")
        result = serve(grid_of(tmp_path, seeded), own, 2)
        assert [entry.abandoned for entry in result.history] == [None] * 2
        means = own.setup.strategy.means  # type: ignore[attr-defined]
        assert [mean.blocks["control"][0] for mean in means] == pytest.approx([1, 2], abs=0.01)


def test_entries_that_stay_local_are_never_sent(tmp_path: Path) -> None:
    def personal(**named: Any) -> Federation:
        made = federation(**named)
        made.setup.model = make
        made.setup.options = replace(made.setup.options, stay_local=("1.*",))
        return made.with_privacy(made.setup.stack.privacy)

    grid = grid_of(tmp_path, personal)
    result = serve(grid, personal(), 3)
    assert same(result.model, personal().fit(3).model)
    sent = {name for _, message in grid.log for name in message.content.array_records.get("arrays", {})}
    assert sent == {"0.weight", "0.bias"}


@pytest.mark.parametrize("make", [Scaffold, lambda: FedDyn(0.5), lambda: FedNova(usual=4), FedAdp])
def test_algorithms_of_several_vectors_and_kept_state_give_the_model_of_the_run_in_memory(
    tmp_path: Path, make: Any
) -> None:
    def own(**named: Any) -> Federation:
        return federation(strategy=make(), **named)

    grid = grid_of(tmp_path, own)
    serve(grid, own(output=tmp_path / "run"), 2)
    result = serve(grid, own(output=tmp_path / "run"), 3)
    assert [entry.abandoned for entry in result.history] == [None] * 3
    assert same(result.model, own().fit(3).model)


def test_a_second_vector_is_clipped_noised_and_charged_at_nodes_too(tmp_path: Path) -> None:
    def own(**named: Any) -> Federation:
        layers = [ClientDP(noise_multiplier=1.0, clip=0.5), SecAgg()]
        return federation(strategy=Scaffold(control_clip=0.25), metrics=(), **named).with_privacy(layers)

    result = serve(grid_of(tmp_path, own), own(), 2)
    assert [(entry.abandoned, entry.refusals) for entry in result.history] == [(None, {})] * 2
    assert result.epsilon == own().fit(2).epsilon


def test_nodes_seal_what_they_keep_and_erase_it_when_the_run_is_over(tmp_path: Path) -> None:
    def own(**named: Any) -> Federation:
        return federation(strategy=Scaffold(), **named)

    def names(place: int) -> list[str]:
        site = load_site(tmp_path / f"n{place}", place, own().setup.names[place - 1])
        return [name for name in site.store.names() if name.startswith("kept/")]

    grid = grid_of(tmp_path, own)
    serve(grid, own(output=tmp_path / "run"), 2)
    assert all(names(place) for place in range(1, 5))
    assert b"control" not in b"".join(p.read_bytes() for p in (tmp_path / "n1").rglob("*") if p.is_file())
    serve(grid, own(output=tmp_path / "run"), 3, erase=True)
    assert not any(names(place) for place in range(1, 5))
    late = serve(grid, own(output=tmp_path / "run"), 4)
    assert late.history[-1].abandoned
    assert "erased when the run ended" in str(late.history[-1].refusals)


def clustered() -> Federation:
    return federation(strategy=Clusters())


def test_several_sums_in_a_round_give_the_models_of_the_run_in_memory(tmp_path: Path) -> None:
    own, alike = clustered(), clustered()
    result = serve(grid_of(tmp_path, clustered), own, 2)
    expected = alike.fit(2)
    assert [entry.abandoned for entry in result.history] == [None] * 2
    assert result.history[-1].survivors == expected.history[-1].survivors
    models, others = (made.setup.strategy.models for made in (own, alike))  # type: ignore[attr-defined]
    assert models.keys() == others.keys() == {"first", "second"}
    assert all((models[name] == others[name]).all() for name in models)


def test_a_node_refuses_the_model_of_another_sum(tmp_path: Path) -> None:
    """The sum's name is in the session's context: a server that says another one is found out."""

    def rename(node: int, message: Any) -> Any:
        request, frames = unpack_request(message.content, None)
        if node == 1 and request.header is not None and request.header.terms.name:
            header = replace(request.header, terms=replace(request.header.terms, name="third"))
            content = {**message.content, **pack(replace(request, header=header), frames, None)}
            return Message(RecordDict(content), dst_node_id=node, message_type="train")
        return message

    grid = grid_of(tmp_path, clustered, before=rename)
    result = serve(grid, clustered(), 1)
    assert result.history[0].abandoned is not None
    assert "the session is not bound to the round that came with it" in str(
        result.history[0].refusals["site-1"]
    )


def test_a_kill_between_two_sums_charges_everybody_who_was_asked(tmp_path: Path) -> None:
    facts = ServerFacts(MemoryStore())
    for session, asked in ((1, ("a", "b")), (2, ("c",))):
        facts.inputs_asked(AskedRound(session, 1, bytes(32), asked))
    assert facts.last_asked() == AskedRound(2, 1, bytes(32), ("a", "b", "c"))
    facts.inputs_asked(AskedRound(3, 2, bytes(32), ("a",)))
    assert facts.last_asked() == AskedRound(3, 2, bytes(32), ("a",))
