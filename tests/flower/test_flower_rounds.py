"""Protected rounds through the real mod and strategy: what is summed, what leaves a node, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedYogi,
    Krum,
    QFedAvg,
)

from fl.flower.arrays import arrays_of, tree_of
from fl.flower.files import MODEL
from fl.flower.messages import KEY
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.site import Site
from fl.round import open_round, reference_of
from fl.round.run_files import CHECKPOINT, METRICS, STATEMENT
from he import CKKSSum, KeyHolder, PaillierSum, Threshold
from he.paillier.keyring import HolderKey
from he.paillier.keys import generate
from protocols import PlainSum, simulate
from protocols.errors import Aborted, Misuse, StackError
from protocols.identity import Identity, SignedRoster
from protocols.layers import Contribution, PrivacyLayer, RunFacts
from protocols.record import FILE_NAME, check_files, verify_record
from protocols.stack import Numbers, Stack
from protocols.updates import flatten
from secagg import SecAgg, SecAggPlus
from tests.flower.direct import DirectGrid, client_app, fedavg, model, play_out, rostered, trained

Layers = Callable[[], list[Any]]


def masks() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.33)]


def nodes(folder: Path, count: int, layers: Layers = masks, **hooks: Any) -> DirectGrid:
    apps = {n: (client_app(privacy_mod(layers(), site=folder / f"n{n}")), {}) for n in range(1, count + 1)}
    return DirectGrid(apps, **hooks)


def expected_vectors(layers: list[Any], count: int, first: int = 1) -> dict[str, np.ndarray]:
    """The nodes' integer vectors of round 1, computed without Flower; `first`: the first node that trains."""
    stack, reference = Stack(layers), reference_of(model())
    names = tuple(f"node-{n}" for n in range(first, first + count))
    run = RunFacts(rounds=1, population=count, cohort=count, dimension=reference.schema.dimension)
    stack.plan(run)
    plan = open_round(stack, run, 1, names, reference).plan
    vectors = {}
    for n, name in enumerate(names, start=first):
        update = flatten(trained(n, model(), 1), reference.schema).vector - reference.flat.vector
        vectors[name] = plan.encode(Contribution(update, 10 * n), plan.facts)
    return vectors


@pytest.mark.parametrize("make", [PlainSum, SecAgg, SecAggPlus], ids=["none", "secagg", "secagg+"])
def test_the_total_is_the_in_memory_runs_total(
    tmp_path: Path, make: type[Any], totals: list[np.ndarray]
) -> None:
    strategy = PrivateStrategy(fedavg(4), [make()])
    play_out(strategy, nodes(tmp_path, 4, lambda: [make()]), arrays_of(model()), num_rounds=1)
    vectors = expected_vectors([make()], 4)
    outcome = simulate(make(), vectors, bound=max(int(np.abs(v).max()) for v in vectors.values()))
    np.testing.assert_array_equal(outcome.total, sum(vectors.values()))
    np.testing.assert_array_equal(totals, [outcome.total])


@pytest.mark.parametrize(
    ("make", "helpers"),
    [
        (lambda: PaillierSum(KeyHolder(), key_bits=2048), 1),
        (lambda: PaillierSum(Threshold(2, 3), key_bits=2048), 3),
        (CKKSSum, 1),
    ],
    ids=["paillier-keyholder", "paillier-threshold", "ckks"],
)
def test_key_holders_and_decryptors_are_nodes_that_never_train(
    tmp_path: Path, make: Callable[[], Any], helpers: int, totals: list[np.ndarray]
) -> None:
    protocol, calls = make(), list[int]()
    mods = {n: privacy_mod([protocol], site=tmp_path / f"n{n}") for n in range(1, 4 + helpers)}
    grid = DirectGrid({n: (client_app(mod, calls), {}) for n, mod in mods.items()})
    strategy = PrivateStrategy(fedavg(3), [protocol])
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    expected = sum(expected_vectors([PlainSum()], 3, first=1 + helpers).values())
    np.testing.assert_array_equal(totals, [expected])
    assert sorted(calls) == list(range(1 + helpers, 4 + helpers))


def test_every_node_has_its_own_paillier_key_and_identity(tmp_path: Path) -> None:
    """Three clients and a key holder of the signed roster, each with what it alone holds."""
    holder = HolderKey.of(generate(2048))

    def own_layers(site: Site) -> list[Any]:
        keys = holder if site.name == "site-4" else holder.published
        return [PaillierSum(KeyHolder(), keys=keys, identity=site.identity, roster=site.roster)]

    grid, arguments = rostered(tmp_path, 4, privacy_mod(own_layers))
    signed = arguments["roster"].roster
    members = [replace(m, role="key-holder") if m.name == "site-4" else m for m in signed.members]
    authority = Identity.load(tmp_path / "keys" / "authority" / "authority.key")
    again = SignedRoster.sign(replace(signed, members=tuple(members)), authority)
    again.save(tmp_path / "keys" / "roster.json")
    server = PaillierSum(KeyHolder(), keys=holder.published, roster=again.roster)
    strategy = PrivateStrategy(fedavg(3), [server], **{**arguments, "roster": again})
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    (report,) = strategy.history
    assert (report.abandoned, report.survivors) == (None, ("site-1", "site-2", "site-3"))
    assert strategy.statement().protection.threat == "malicious"


def test_reused_keys_take_two_trips_a_round(tmp_path: Path, totals: list[np.ndarray]) -> None:
    def layers() -> list[Any]:
        return [SecAggPlus(setup="reuse", threat="semi-honest", dropout=0.3)]

    strategy = PrivateStrategy(fedavg(4), layers())
    play_out(strategy, nodes(tmp_path, 4, layers), arrays_of(model()), num_rounds=3)
    assert [len(report.trips) for report in strategy.history] == [3, 2, 2]
    for report in strategy.history:
        assert report.survivors == ("node-1", "node-2", "node-3", "node-4")
    np.testing.assert_array_equal(totals[0], sum(expected_vectors([PlainSum()], 4).values()))


def test_the_average_is_fedavgs_within_a_quantisation_step(tmp_path: Path) -> None:
    strategy = PrivateStrategy(fedavg(3), masks(), metrics=["loss"])
    result = strategy.start(nodes(tmp_path, 3), arrays_of(model()), num_rounds=1)
    found = tree_of(result.arrays)
    weights = {n: 10 * n / 60 for n in (1, 2, 3)}
    for name, start in model().items():
        assert found[name].dtype == start.dtype
        assert found[name].shape == start.shape
        if start.dtype.kind == "f":
            mean = sum(w * trained(n, model(), 1)[name].astype(np.float64) for n, w in weights.items())
            np.testing.assert_allclose(found[name], mean, atol=2.0**-13)
    assert int(found["batches"]) == 7
    loss = strategy.history[0].train_metrics["loss"]
    assert loss == pytest.approx(sum(0.25 * n * w for n, w in weights.items()), abs=1e-5)
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx(loss)


@pytest.mark.parametrize("kind", [FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi])
def test_every_allowed_strategy_runs_unchanged(tmp_path: Path, kind: Any) -> None:
    named = {"fraction_evaluate": 0.0, "min_train_nodes": 3, "min_available_nodes": 3}
    start = {"w": np.zeros(8, np.float32)}
    result = PrivateStrategy(kind(**named), masks()).start(nodes(tmp_path, 3), arrays_of(start), num_rounds=2)
    clear = DirectGrid({n: (client_app(lambda m, c, call: call(m, c)), {}) for n in (1, 2, 3)})
    expected = kind(**named).start(clear, arrays_of(start), num_rounds=2)
    np.testing.assert_allclose(tree_of(result.arrays)["w"], tree_of(expected.arrays)["w"], atol=0.02)


def test_nothing_but_protocol_frames_leaves_a_node(tmp_path: Path) -> None:
    seen: list[RecordDict] = []

    def keep(node: int, reply: Message) -> Message:
        seen.append(reply.content)
        return reply

    strategy = PrivateStrategy(fedavg(3), masks())
    play_out(strategy, nodes(tmp_path, 3, after=keep), arrays_of(model()), num_rounds=1)
    assert {frozenset(content) for content in seen} == {frozenset({KEY})}
    leaked = [trained(n, model(), 1)["layer.weight"].tobytes()[:16] for n in (1, 2, 3)]
    for content in seen:
        sent = content.config_records[KEY]
        assert sent.keys() == {"body", "frames"}
        assert not any(secret in piece for secret in leaked for piece in [sent["body"], *sent["frames"]])  # type: ignore[misc,operator]


@pytest.mark.parametrize("kind", ["train", "evaluate", "query"])
def test_a_message_without_a_session_is_refused_with_a_reason(tmp_path: Path, kind: str) -> None:
    grid = nodes(tmp_path, 1)
    content = RecordDict({"arrays": arrays_of(model()), "config": ConfigRecord({"server-round": 1})})
    (reply,) = grid.send_and_receive([Message(content, 1, kind)])
    assert reply.has_error()
    assert "unprotected" in (reply.error.reason or "")


def test_a_node_without_a_place_for_its_state_is_refused() -> None:
    grid = DirectGrid({n: (client_app(privacy_mod(masks())), {}) for n in (1, 2, 3)})
    strategy = PrivateStrategy(fedavg(3), masks())
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    assert strategy.history[0].abandoned is not None
    assert all("secagg-site" in why for why in strategy.history[0].refusals.values())


@pytest.mark.parametrize("kind", [FedMedian, Krum, QFedAvg])
def test_strategies_that_need_more_than_the_mean_are_refused(kind: Any) -> None:
    with pytest.raises(Misuse, match="cannot run on a secure sum"):
        PrivateStrategy(kind(0.1) if kind is QFedAvg else kind(), masks())


def test_a_subclass_declares_that_it_needs_only_the_mean() -> None:
    class Mine(FedAvg):
        pass

    class Declared(FedAvg):
        needs_only_the_mean = True

    class Inherits(Declared):
        pass

    PrivateStrategy(Declared(), masks())
    for kind in (Mine, Inherits):
        with pytest.raises(Misuse, match="nobody has said"):
            PrivateStrategy(kind(), masks())
    with pytest.raises(Misuse, match="train_metrics_aggr_fn"):
        PrivateStrategy(FedAvg(train_metrics_aggr_fn=lambda records, key: records[0]), masks())


def test_a_layer_that_owns_training_is_refused_by_the_mod() -> None:
    class Owner(PrivacyLayer):
        name = "owner"

        def local(self, compute: Any, facts: Any) -> Any:
            return compute

    with pytest.raises(StackError, match="client_app"):
        privacy_mod([Owner()])


def test_the_run_is_recorded_and_clients_keep_its_head(tmp_path: Path) -> None:
    grid, arguments = rostered(tmp_path, 3, privacy_mod(masks()))
    strategy = PrivateStrategy(fedavg(3), masks(), **arguments)
    play_out(strategy, grid, arrays_of(model()), num_rounds=2)
    run = tmp_path / "run"
    kept = (tmp_path / "keys" / "site-2" / "kept-head.txt").read_text().strip()
    verdict = verify_record(run / FILE_NAME, arguments["identity"].public, kept)
    assert verdict.level == "verified"
    assert verdict.head == kept
    assert [e.body["survivors"] for e in verdict.entries[1:]] == [3, 3]
    assert check_files(verdict, run) == tuple(sorted((CHECKPOINT, METRICS, MODEL, STATEMENT)))
    lines = (run / FILE_NAME).read_bytes().splitlines(keepends=True)
    (run / FILE_NAME).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(Exception, match="cut short"):
        verify_record(run / FILE_NAME, arguments["identity"].public, kept)


def test_waiting_for_nodes_has_an_end(tmp_path: Path) -> None:
    strategy = PrivateStrategy(fedavg(9), masks(), node_timeout=0.5)
    with pytest.raises(Aborted, match="enough nodes"):
        strategy.start(nodes(tmp_path, 2), arrays_of(model()), num_rounds=1)


def test_evaluation_is_skipped_unless_both_sides_allow_it(tmp_path: Path) -> None:
    both = FedAvg(min_train_nodes=3, min_available_nodes=3)
    strategy = PrivateStrategy(both, masks())
    result = strategy.start(nodes(tmp_path, 3), arrays_of(model()), num_rounds=1)
    assert not result.evaluate_metrics_clientapp
    declared = PrivateStrategy(FedAvg(min_train_nodes=3, min_available_nodes=3), masks(), evaluate="clear")
    declared.start(nodes(tmp_path / "declared", 3), arrays_of(model()), num_rounds=1)
    assert any("evaluation metrics" in note for note in declared.statement().notes)
    open_mod = privacy_mod(masks(), site=tmp_path / "open", evaluate="clear")
    with pytest.raises(Misuse, match="evaluate"):
        privacy_mod(masks(), evaluate="yes")  # type: ignore[arg-type]  # the mistake under test
    grid = DirectGrid({1: (client_app(open_mod), {})})
    (reply,) = grid.send_and_receive([Message(RecordDict(), 1, "evaluate")])
    assert not reply.has_error()


def test_capped_weights_are_counted_and_integer_arrays_summed_by_choice(tmp_path: Path) -> None:
    numbers = Numbers(weight_cap=15)  # nodes hold 10, 20 and 30 examples
    apps = {
        n: (client_app(privacy_mod(masks(), numbers=numbers, site=tmp_path / f"n{n}")), {}) for n in (1, 2, 3)
    }
    strategy = PrivateStrategy(fedavg(3), masks(), numbers=numbers, integers="sum", metrics=["loss"])
    result = strategy.start(DirectGrid(apps), arrays_of(model()), num_rounds=1)
    (report,) = strategy.history
    assert (report.weights_capped, report.empty_clients) == (2, 0)
    assert any("public weight cap" in note for note in strategy.statement().notes)
    assert int(tree_of(result.arrays)["batches"]) == 7 + 3  # every node counted one batch
    shares = {1: 10 / 40, 2: 15 / 40, 3: 15 / 40}
    bias = sum(w * trained(n, model(), 1)["layer.bias"] for n, w in shares.items())
    np.testing.assert_allclose(tree_of(result.arrays)["layer.bias"], bias, atol=2.0**-13)
    assert report.train_metrics["loss"] == pytest.approx(
        sum(0.25 * n * w for n, w in shares.items()), abs=1e-5
    )
