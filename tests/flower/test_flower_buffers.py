"""FedBuff over Flower: nodes train when a model comes and contribute when a buffer asks, with models of several ages;
chains that the server signs, and servers that lie about them.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message

from dp import ClientDP, Ledger, SampleDP
from examples.flower.keys import make_deployment, write_site
from fl import FedBuff, Federation
from fl.flower.compat import failure_of
from fl.flower.messages import unpack_request
from fl.network.messages import HELLO, START, WORK
from fl.network.prepared import Done
from fl.network.site import load_site
from fl.round import Manifest, Version
from fl.round.chain import Chain
from fl.round.party_ledger import LEDGER
from protocols.errors import StackError
from protocols.identity import BadSignature, Identity, SignedRoster
from protocols.party_state import KEPT
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, pem
from tests.flower.test_flower_apps import SITES, loader_for, serve, train

MORE = tuple(f"site-{n}" for n in range(1, 8))


def federation(privacy: Any = (), strategy: Any = None, **named: Any) -> Federation:
    return Federation(
        model=lambda: torch.nn.Linear(5, 2),
        clients=lambda name, config: loader_for(SITES[MORE.index(name) % len(SITES)], config),
        names=MORE,
        train=train,
        strategy=strategy or FedBuff(4, leaving=0),
        privacy=privacy,
        seed=3,
        range=2.0,
        **named,
    )


class SlowGrid(DirectGrid):
    """Keeps replies to work back: one comes with every look."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.working: list[str] = []

    def push_messages(self, messages: Any) -> Any:
        listed = list(messages)
        ids = list(super().push_messages(listed))
        for message_id, message in zip(ids, listed, strict=True):
            if kind_of(message) == WORK:
                self.working.append(message_id)
        return ids

    def pull_messages(self, message_ids: Any) -> Any:
        asked = list(message_ids)
        work = [mid for mid in self.working if mid in asked and mid in self.replies]
        taken = [mid for mid in asked if mid not in work] + work[:1]
        self.working = [mid for mid in self.working if mid not in taken]
        return super().pull_messages(taken)


def kind_of(message: Message) -> str:
    return unpack_request(message.content, None)[0].kind


def grid_of(
    folder: Path, make: Callable[..., Federation] = federation, kind: Any = SlowGrid, **hooks: Any
) -> DirectGrid:
    apps = {n: (make().client_app(site=folder / f"n{n}"), {"partition-id": n - 1}) for n in range(1, 8)}
    grid: DirectGrid = kind(apps, **hooks)
    return grid


def test_buffers_sum_models_of_several_ages_and_nodes_train_while_others_are_summed(tmp_path: Path) -> None:
    grid, own = grid_of(tmp_path), federation()
    result = serve(grid, own, 6)
    assert [played.abandoned for played in result.history] == [None] * 6
    assert all(len(played.survivors) == 4 for played in result.history)
    ages = set[int]()
    for _, message in grid.log:
        request, _ = unpack_request(message.content, None)
        if request.kind == START and request.header is not None:
            manifest = request.header.terms.manifest
            assert manifest is not None
            ages |= {version.age for version in manifest.versions.values()}
    assert len(ages) > 1
    kinds = [kind_of(message) for _, message in grid.log]
    assert kinds.count(WORK) >= len(MORE) + 5 * 4
    assert own.setup.strategy.buffers.chain.newest == 6  # type: ignore[union-attr]


def test_masks_and_plain_sums_give_one_model(tmp_path: Path) -> None:
    def masked(**named: Any) -> Federation:
        return federation([SecAggPlus(dropout=0.0, collusion=0.0, threat="semi-honest")], **named)

    plain = serve(grid_of(tmp_path / "a"), federation(), 3).model.state_dict()
    hidden = serve(grid_of(tmp_path / "b", masked), masked(), 3).model.state_dict()
    assert all(torch.equal(plain[name], hidden[name]) for name in plain)


def test_a_stopped_server_goes_on_and_everybody_begins_anew(tmp_path: Path) -> None:
    out, grid = tmp_path / "run", grid_of(tmp_path)
    serve(grid, federation(output=out), 2)
    result = serve(grid, federation(output=out), 4)
    assert [played.abandoned for played in result.history] == [None] * 4
    assert len(result.history) == 4


def test_what_nodes_made_is_erased_when_the_run_is_over(tmp_path: Path) -> None:
    def held() -> list[int]:
        stores = [load_site(tmp_path / f"n{n}", n, f"site-{n}").store for n in range(1, 8)]
        return [len(list(store.names(KEPT))) for store in stores]

    serve(grid_of(tmp_path), federation(), 1)
    before = held()
    assert sum(before) >= 3
    serve(grid_of(tmp_path), federation(), 1, erase=True)
    assert held() == before, "what is left is of the run before"


def test_every_buffer_is_charged_at_the_server_and_at_the_nodes_that_are_in_it(tmp_path: Path) -> None:
    def noised(**named: Any) -> Federation:
        return federation([ClientDP(noise_multiplier=2.0, clip=0.5)], **named)

    result = serve(grid_of(tmp_path, noised), noised(), 3)
    assert len(result.statement.events) == 3
    for n, site in enumerate(MORE, 1):
        asked = sum(site in played.asked for played in result.history)
        path = tmp_path / f"n{n}" / LEDGER
        assert len(Ledger(path).entries() if path.exists() else ()) == asked


def test_who_does_not_work_is_not_waited_for_and_nobody_ends_no_run(tmp_path: Path) -> None:
    def lazy(node: int, message: Message) -> Message | None:
        return None if node in (1, 2) and kind_of(message) == WORK else message

    result = serve(grid_of(tmp_path / "a", before=lazy), federation(), 3, timeout=1.0)
    assert [played.abandoned for played in result.history] == [None] * 3
    assert not {"site-1", "site-2"} & {name for played in result.history for name in played.survivors}

    def away(node: int, message: Message) -> Message | None:
        return None if kind_of(message) == WORK else message

    (played,) = serve(grid_of(tmp_path / "b", before=away), federation(), 1, timeout=0.3).history
    assert "nobody was chosen" in (played.abandoned or "")


def test_a_node_contributes_what_it_made_once_and_only_to_the_model_that_it_began_with(
    tmp_path: Path,
) -> None:
    def late(node: int, message: Message) -> Message | None:
        request, _ = unpack_request(message.content, None)
        if request.kind == START and node == 3:  # what it made is of a model that it is not asked about
            store = load_site(tmp_path / "n3", 3, "site-3").store
            with store.transaction() as t:
                (place,) = t.names(KEPT)
                t.put(place, replace(Done.decode(t.get(place) or b""), base=bytes(32)).encode())
        return message

    def six(**named: Any) -> Federation:
        return federation(strategy=FedBuff(6, leaving=2), **named)

    grid = grid_of(tmp_path, six, before=late)
    (played,) = serve(grid, six(), 1).history
    assert "no work on the model" in played.refusals["site-3"]
    for n in (1, 2):
        with load_site(tmp_path / f"n{n}", n, f"site-{n}").store.transaction() as t:
            assert not list(t.names(KEPT)), "what was sent once is not sent again"


def test_after_a_buffer_that_failed_nodes_make_something_else(tmp_path: Path) -> None:
    """The same model came again, and training gave the update again that had left: every node refused to send it."""
    sessions = list[bytes]()

    def failing(node: int, message: Message) -> Message | None:
        request, _ = unpack_request(message.content, None)
        if request.kind in (WORK, HELLO):
            return message
        if request.context not in sessions:
            sessions.append(request.context)
        lost = request.context == sessions[0] and request.stage == "unmask"
        return None if lost else message

    def masked(**named: Any) -> Federation:
        return federation([SecAggPlus(dropout=0.0, collusion=0.0, threat="semi-honest")], **named)

    history = serve(grid_of(tmp_path, masked, before=failing), masked(), 3, timeout=2.0).history
    assert [played.abandoned is None for played in history] == [False, True, True]


def told(grid: DirectGrid) -> list[str]:
    """What nodes say instead of an answer."""
    said = list[str]()
    grid.after = lambda node, reply: said.append(failure_of(reply) or "") or reply  # type: ignore[func-returns-value]
    return said


@pytest.mark.parametrize(
    "lie", ["shows others than before", "the chain of the run's models", "is not the version"]
)
def test_a_node_refuses_to_work_on_models_of_another_chain(tmp_path: Path, lie: str) -> None:
    server, grid = federation(), grid_of(tmp_path)
    buffers = server.setup.strategy.buffers
    assert buffers is not None
    honest, said = buffers.started, told(grid)

    def lying(clients: Any, own: Any, run: str = "") -> Any:
        manifest, bases = honest(clients, own, run)
        if buffers.chain.newest < 1 or len(clients) > 1:
            return manifest, bases
        past, newest = manifest.chain.digests[:-1], manifest.chain.digests[-1]
        if lie == "shows others than before":
            return replace(manifest, chain=Chain((*(bytes(32) for _ in past), newest))), bases
        if lie == "is not the version":
            other = Version(bytes(32))
            versions = dict.fromkeys(manifest.versions, other)
            return Manifest(versions, manifest.started, 2, Chain((*past, other.digest))), bases
        return replace(manifest, chain=Chain()), bases

    buffers.started = lying  # type: ignore[method-assign]
    serve(grid, server, 3, timeout=1.0)
    assert any(lie in why for why in said)


def test_a_node_insists_on_as_many_of_a_version_as_its_own_federation_says(tmp_path: Path) -> None:
    grid = grid_of(tmp_path)
    said = told(grid)
    (played,) = serve(grid, federation(strategy=FedBuff(4, alike=1, leaving=0)), 1).history
    assert played.abandoned
    assert any("keeps 1 clients of a version in a total, at least 2" in why for why in said)


@pytest.mark.parametrize("signs", [True, False])
def test_nodes_of_a_roster_work_on_models_whose_chain_its_server_signed(
    tmp_path: Path, signs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, apps, keys = make_deployment(tmp_path / "keys", len(MORE)), {}, {}
    for n, node in enumerate(files.nodes, start=1):
        write_site(files, node, {})
        apps[n] = (federation().client_app(), {"secagg-site": str(node.identity.parent)})
        keys[n] = pem(node.auth_public)
    given = {"roster": SignedRoster.load(files.roster), "authority": files.authority_key}
    own, grid = federation(output=tmp_path / "run"), SlowGrid(apps, keys=keys)
    said = told(grid)
    if not signs:
        monkeypatch.setattr(Chain, "signed", lambda chain, run, signer: chain)
    server = Identity.load(files.server_identity)
    result = serve(grid, own, 2, timeout=5.0 if signs else 0.3, identity=server, **given)
    assert [played.abandoned is None for played in result.history] == [signs] * 2
    assert signs != any("BadSignature" in why for why in said)


def test_nodes_take_chains_that_their_server_signed() -> None:
    one, two = (Identity.generate(name) for name in ("server", "other"))
    chain = Chain((bytes(32),))
    chain.signed("run", one).require_signed("run", one.public)
    chain.require_signed("run", None)
    for signed in (chain, chain.signed("run", two), chain.signed("another run", one)):
        with pytest.raises(BadSignature):
            signed.require_signed("run", one.public)


def test_layers_that_own_the_training_are_refused_by_name() -> None:
    def loss(model: Any, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    run = federation([SampleDP(noise_multiplier=2.0, clip=0.5, examples=24, batch_size=8)], loss=loss)
    for app in (run.client_app, run.server_app):
        with pytest.raises(StackError, match="sample-dp needs to know its round while a client trains"):
            app()
    with pytest.raises(StackError, match=r"weight needs to know its round"):
        federation(stay_local=("weight",)).client_app()
