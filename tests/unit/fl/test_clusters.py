"""IFCA: clusters that form by fit, the choice hidden inside the sum, and nobody sent to a cluster that is too small."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import IFCA, FedAvg, Federation, FewBits, LowRank, RandomK
from fl.copies import Copies, losses_of
from fl.registry import STRATEGIES
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation, StackError
from secagg import SecAgg, SecAggPlus

TRUTH = np.array([[2.0, 1.0], [-2.0, 0.5], [0.5, -3.0]])
RATE = 0.1


def data(cluster: int, place: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(place).standard_normal((20, 2))
    return x, x @ TRUTH[cluster]


def line() -> torch.nn.Module:
    return torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)


def loss(model: Any, batch: Any) -> Any:
    x, y = batch
    return ((model(x)[:, 0] - y) ** 2).mean()


def fit(model: Any, loader: Any, optimizer: Any) -> None:
    for batch in loader:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()


def federation(strategy: Any, members: list[int], privacy: Any = (), **options: Any) -> Federation:
    rows = [data(cluster, place) for place, cluster in enumerate(members)]
    clients = [DataLoader(TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=20) for x, y in rows]
    given = {"metrics": (), "bits": 24, "range": 16.0, "learning_rate": RATE, "loss": loss, **options}
    return Federation(line, clients, fit, strategy, privacy, **given)


def weights(run: Federation) -> np.ndarray:
    return np.array([copy.weight.detach().numpy()[0] for copy in run.model.copies])


def ifca(w: np.ndarray, members: list[int], steps: int) -> tuple[np.ndarray, list[int]]:
    """The reference: the paper's Algorithm 1 with one local gradient step and model averaging; none for one alone."""
    choices: list[int] = []
    for _ in range(steps):
        moves: dict[int, list[np.ndarray]] = {}
        choices = []
        for place, cluster in enumerate(members):
            x, y = data(cluster, place)
            j = int(np.argmin([((x @ v - y) ** 2).mean() for v in w]))
            choices.append(j)
            moves.setdefault(j, []).append(-RATE * 2 * x.T @ (x @ w[j] - y) / len(y))
        w = np.array(
            [v + np.mean(moves[j], axis=0) if len(moves.get(j, [])) > 1 else v for j, v in enumerate(w)]
        )
    return w, choices


MEMBERS = [0, 1, 2] * 4


def choices(run: Federation) -> list[int]:
    return [
        int(np.argmin(losses_of(run.model, run.setup.loader_for(name), loss=loss)))  # type: ignore[arg-type]
        for name in run.setup.names
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ifca_is_the_papers_algorithm(seed: int) -> None:
    run = federation(IFCA(3, least=2), MEMBERS, seed=seed)
    start = weights(run)
    run.fit(2 * 3)
    expected, _ = ifca(start, MEMBERS, 3)
    assert weights(run) == pytest.approx(expected, abs=1e-4)


def test_clients_of_one_kind_end_in_one_cluster_whose_model_is_theirs() -> None:
    run = federation(IFCA(3, least=2), MEMBERS, seed=3, learning_rate=0.2)
    with torch.no_grad():
        for copy, truth in zip(run.model.copies, TRUTH, strict=True):
            copy.weight.copy_(torch.tensor(truth / 2)[None])
    run.fit(60)
    assert choices(run) == MEMBERS
    assert weights(run) == pytest.approx(TRUTH, abs=0.01)


def test_a_copy_that_nobody_chose_begins_anew_and_splits_a_cluster_of_two_kinds() -> None:
    ends = []
    for reseed in (0.0, 0.05):
        run = federation(IFCA(2, least=3, reseed=reseed), [0, 1] * 4, learning_rate=0.2)
        with torch.no_grad():
            run.model.copies[0].weight.copy_(torch.tensor(TRUTH[:2].mean(0))[None])
            run.model.copies[1].weight.copy_(torch.tensor([[50.0, 50.0]]))  # fits nobody
        run.fit(60)
        ends.append((len(set(choices(run))), weights(run)))
    assert ends[0][0] == 1, "as in the paper: a model that nobody chose stays"
    assert ends[1][0] == 2
    assert np.sort(ends[1][1], 0) == pytest.approx(np.sort(TRUTH[:2], 0), abs=0.01)


def test_beginning_anew_is_refused_where_not_all_clients_are_asked() -> None:
    """A cluster whose clients were not drawn would lose its model."""
    with pytest.raises(Misuse, match=r"reseed=0\.05: .* ask all clients in every round"):
        federation(IFCA(2, reseed=0.05), [0, 1] * 4, fraction=0.5).fit(2)


@pytest.mark.parametrize("layer", [SecAgg, SecAggPlus])
def test_ifca_under_masks_is_that_of_the_plain_sum_bit_for_bit(layer: Any) -> None:
    masked, plain = federation(IFCA(3), MEMBERS, [layer()]), federation(IFCA(3), MEMBERS)
    masked.fit(4)
    plain.fit(4)
    assert np.array_equal(weights(masked), weights(plain))


def test_clients_are_counted_before_any_update_and_the_counts_alone_are_sent() -> None:
    run = federation(IFCA(3), MEMBERS, [SecAgg()])
    history = run.fit(4).history
    counted, sent = history[0].bytes_up_per_client, history[1].bytes_up_per_client
    assert counted < sent
    run.coordinator.setup.strategy.sums(run.setup.names, 5)
    shown = run.coordinator.open(5, run.setup.names)
    assert (shown.reference.schema.dimension, shown.plan.summed.dimension) == (0, 0)
    assert [c.name for c in shown.counts] == ["cluster-1", "cluster-2", "cluster-3", "no cluster"]
    sums = {"ifca": {"counts": np.array([4.0, 4.0, 4.0, 0.0])}}
    assert run.coordinator.open(5, run.setup.names, sums).reference.schema.dimension == 3 * 2


def test_every_vector_is_k_times_as_long_and_says_nothing_of_the_choice() -> None:
    run = federation(IFCA(3), MEMBERS, [SecAgg()])
    statement = str(run.fit(2).statement)
    assert run.coordinator.schema.dimension == 3 * 2
    assert "its upload is 3 times one model's" in statement
    assert "how many clients chose each of 3 models" in statement
    assert "stopped by noise alone" in statement


def started(members: list[int], **options: Any) -> Federation:
    """A federation whose copies begin near their clusters' truth."""
    run = federation(IFCA(3, least=3), members, **options)
    with torch.no_grad():
        for copy, truth in zip(run.model.copies, TRUTH, strict=True):
            copy.weight.copy_(torch.tensor(0.8 * truth)[None])
    return run


def counted(run: Federation, *sizes: float) -> Any:
    """What clients are shown in round 2, after these were counted in round 1."""
    closed = dict.fromkeys(run.setup.names, 1.0)
    return run.coordinator.open(2, run.setup.names, {"ifca": {"counts": np.array(sizes)}, "closed": closed})


def test_nobody_sends_to_a_cluster_that_is_too_small() -> None:
    run = started([0] * 5 + [1] * 4 + [2], privacy=[SecAgg()])
    before = weights(run)
    run.fit(2)
    moved = np.abs(weights(run) - before).max(axis=1) > 1e-3
    assert moved.tolist() == [True, True, False], "the cluster of one stays where it was"
    work, stores = run.engine.work, run.engine.stores  # type: ignore[attr-defined]
    shown = counted(run, 5, 4, 1, 0)
    alone, other = work(shown, shown.own("9", stores["9"])), work(shown, shown.own("0", stores["0"]))
    assert not alone.vector.any()
    assert [int(alone.coordinates[f"count/cluster-{c}"][0]) for c in (1, 2, 3)] == [0, 0, 0]
    assert other.vector[:2].any()
    assert not other.vector[2:].any()


def test_every_client_insists_that_no_cluster_falls_below_the_least() -> None:
    run = started([0] * 5 + [1] * 4 + [2], privacy=[SecAggPlus(dropout=0.2)])
    run.engine.departures = lambda protocol, session: (  # type: ignore[attr-defined]
        (),
        {"masked-input": ["0", "1"] if session.round == 2 else []},
    )
    history = run.fit(4).history
    told = {"ifca": {"counts": np.array([5.0, 4.0, 1.0, 0.0])}}
    assert run.coordinator.open(2, run.setup.names, told).plan.min_survivors == 9
    assert [bool(result.abandoned) for result in history] == [False, True, False, False]
    assert "9" in (history[1].abandoned or "")


class Fickle(torch.nn.Module):
    """A copy whose loss is another at every look: augmentation, dropout by hand, an order of batches."""

    looks = 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, 2, dtype=torch.float64))

    def forward(self, inputs: Any) -> Any:
        Fickle.looks += 1
        return inputs @ self.weight.T + Fickle.looks % 7 - 3


def test_clients_send_by_the_choice_that_was_counted_however_their_data_look_by_now() -> None:
    seen: list[list[int]] = []

    class Seen(IFCA):
        def extras(self, task: Any, difference: Any, reported: Any, facts: Any) -> Any:
            copies = difference.reshape(2, -1).any(1) if difference.size else np.zeros(2, bool)
            own = super().extras(task, difference, reported, facts)
            seen[facts.number - 1].append(int(np.argmax(copies)) if copies.any() else -1)
            return own

        def move(self, mean: Any) -> Any:
            chose.append([mean.counts[count.name] for count in self.counts])
            return super().move(mean)

    Fickle.looks, chose = 0, list[list[int]]()
    clients = {f"{k}": federation(FedAvg(), [0, 1]).setup.loader_for(f"{k % 2}") for k in range(10)}
    given = {"metrics": (), "range": 64.0, "loss": loss}
    run = Federation(Fickle, clients, fit, Seen(2, least=3), [SecAgg()], **given)
    seen.extend([] for _ in range(12))
    run.fit(12)
    switched = {tuple(chose[k]) for k in range(0, 12, 2)}
    assert len(switched) > 1, "looks differ"
    for counted, sent in zip(chose[::2], seen[1::2], strict=True):
        expected = [size if size >= 3 else 0 for size in counted[:-1]]
        assert [sent.count(c) for c in range(2)] == expected


def test_impossible_counts_are_refused_and_so_is_who_was_not_counted() -> None:
    run = started([0] * 5 + [1] * 4 + [2], privacy=[SecAgg()])
    run.fit(1)
    work, store = run.engine.work, run.engine.stores["0"]  # type: ignore[attr-defined]
    run.coordinator.run = replace(run.coordinator.run, rounds=9)  # type: ignore[type-var]
    off = [[5.5, 4, 0.5, 0], [-1, 5, 6, 0], [10.0], [6, 5, 0, 0], [5, 4, 0, 0], [5, 4, 1], [5, 4, 1, 0, 0]]
    for sizes in ([np.nan] * 4, [1e9] * 4, *off):
        shown = counted(run, *sizes)
        with pytest.raises(ProtocolViolation, match="numbers that cannot be"):
            work(shown, shown.own("0", store))
    shown = counted(run, 5, 4, 1, 0)
    assert work(shown, shown.own("0", store)).vector.any()
    told = {"counts": np.array([5.0, 4.0, 1.0, 0.0])}
    later = run.coordinator.open(3, run.setup.names, {"ifca": told, "closed": {"0": 1.0}})
    with pytest.raises(PolicyRefusal, match="who were not"):
        work(later, later.own("0", store))


class Exchanging(IFCA):
    """Counts are of some clients, and updates are asked of others: of cluster 0, one is left of three."""

    def sums(self, clients: Any, number: int) -> Any:
        super().sums(clients, number)
        out = {"9", "10"} if self._now == self._step else self.instead
        self._members = tuple(name for name in clients if name not in out)
        return {"": self._members}


@pytest.mark.parametrize("instead", [{"1", "2"}, {"1", "2", "9", "10"}])
def test_counted_clients_are_not_exchanged_and_none_is_left_out(instead: set[str]) -> None:
    """A fresh reader's attack: the move of cluster 0 was one client's own update."""
    strategy = Exchanging(2, least=3)
    strategy.instead = instead  # type: ignore[attr-defined]
    run = federation(strategy, [0, 0, 0, *[1] * 9], [SecAgg(dropout=0.0)])
    with torch.no_grad():
        for copy, truth in zip(run.model.copies, TRUTH[:2], strict=True):
            copy.weight.copy_(torch.tensor(0.8 * truth)[None])
    before = weights(run)
    history = run.fit(2).history
    assert not history[0].abandoned
    assert history[1].abandoned
    assert np.array_equal(weights(run), before)


@pytest.mark.parametrize("layer", [RandomK(0.5), LowRank(1), FewBits(4)])
def test_no_residual_of_a_copy_that_a_client_chose_once_is_sent_later(layer: Any) -> None:
    with pytest.raises(StackError, match="sends later what it leaves out, and ifca reckons"):
        federation(IFCA(2), MEMBERS, [layer, SecAgg()])
    noise = ClientDP(noise_multiplier=1.0)
    if not isinstance(layer, FewBits):
        federation(IFCA(2, least=0), MEMBERS, [layer, noise]).fit(1)


def test_the_statement_counts_those_who_may_work_with_the_server() -> None:
    run = federation(IFCA(2, least=3), [0, 1] * 10, [SecAggPlus(collusion=0.25)])
    said = str(run.fit(1).statement)
    assert "at least 3 clients each, of whom up to 5 may work with the server" in said
    assert "among the honest ones, at least 1 with it" in said


def test_a_stopped_step_goes_on_to_the_same_models(tmp_path: Path) -> None:
    federation(IFCA(3), MEMBERS, [SecAgg()], output=tmp_path).fit(3)
    again = federation(IFCA(3), MEMBERS, [SecAgg()], output=tmp_path)
    again.fit(6, resume=True)
    (whole := federation(IFCA(3), MEMBERS, [SecAgg()])).fit(6)
    assert np.array_equal(weights(again), weights(whole))


def test_a_steps_clients_are_those_that_were_counted() -> None:
    asked = [r.asked for r in federation(IFCA(2, least=2), MEMBERS, fraction=0.5, seed=2).fit(8).history]
    assert [asked[k] == asked[k + 1] for k in range(0, 8, 2)] == [True] * 4
    assert len(set(asked)) > 1


# -- beside noise --


@pytest.mark.parametrize("layer", [ClientDP, DistributedDP])
def test_under_noise_the_whole_vector_is_clipped_and_charged_as_one(layer: Any) -> None:
    def noised(strategy: Any) -> Any:
        return federation(strategy, MEMBERS, [layer(noise_multiplier=2.0, clip=1.0), SecAgg()]).fit(3)

    assert noised(IFCA(3, least=0)).epsilon == pytest.approx(noised(FedAvg()).epsilon, rel=0.01)


def test_under_noise_a_copy_moves_by_its_clusters_sum_over_all_clients() -> None:
    layer = ClientDP(noise_multiplier=1e-9, clip=50.0)
    run = federation(IFCA(3, least=0, server_lr=3.0), MEMBERS, [layer], range=64.0, bits=30)
    w, moves = weights(run), np.zeros((3, 2))
    for place, cluster in enumerate(MEMBERS):
        x, y = data(cluster, place)
        j = int(np.argmin([((x @ v - y) ** 2).mean() for v in w]))
        moves[j] += -RATE * 2 * x.T @ (x @ w[j] - y) / len(y)
    run.fit(1)
    assert weights(run) == pytest.approx(w + 3.0 * moves / len(MEMBERS), abs=1e-5)


def test_what_noise_does_not_cover_is_refused() -> None:
    with pytest.raises(
        StackError, match="ifca without a layer that noises updates: nothing keeps a cluster of one"
    ):
        federation(IFCA(3, least=0), MEMBERS, [SecAgg()])
    given: dict[str, Any] = {"epsilon": 8, "delta": 1e-5, "clip": 1.0}
    for layer in (ClientDP(noise_multiplier=1.0), DistributedDP(**given), LocalDP(**given)):
        with pytest.raises(StackError, match=f"the count 'cluster-1' .* {layer.name}"):
            federation(IFCA(3), MEMBERS, [layer, SecAgg()]).fit(2)
    with pytest.raises(StackError, match="a client's choice of a cluster follows its examples"):
        federation(IFCA(3, least=0), MEMBERS, [SampleDP(noise_multiplier=1.0)])


@pytest.mark.parametrize("options", [{"clusters": 1}, {"least": 1}, {"least": -1}, {"server_lr": 0.0}])
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Misuse):
        IFCA(**options)


def test_ifca_is_built_by_its_name() -> None:
    made: Any = STRATEGIES.build("ifca:clusters=4,least=2")
    assert (made.clusters, made.fewest) == (4, 2)


def test_copies_answer_by_the_one_that_is_surest() -> None:
    sure, unsure = torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        sure.weight.copy_(torch.tensor([[5.0], [-5.0]]))
        unsure.weight.copy_(torch.tensor([[-0.1], [0.1]]))
    both = Copies([unsure, sure])
    assert torch.equal(both(torch.ones(3, 1)), sure(torch.ones(3, 1)))
    empty = DataLoader(TensorDataset(torch.zeros(0, 1), torch.zeros(0, dtype=torch.long)))
    assert losses_of(both, empty) is None


def test_the_statement_promises_no_more_survivors_than_the_step_that_promised_fewest(tmp_path: Path) -> None:
    """It told the last session's: those of the round that sends, which holds all but one or two of a cluster."""
    least = []
    for rounds in (1, 2):
        run = started(MEMBERS, privacy=[SecAggPlus(dropout=0.25)], output=tmp_path)
        result = run.fit(rounds, resume=rounds > 1)
        least.append(result.statement.protection.parameters["least_survivors"])
    assert least[0] == least[1]


@pytest.mark.parametrize("option", ["stay_local", "parameters"])
def test_patterns_that_match_one_copys_entries_alone_are_refused_before_anything_leaves(option: str) -> None:
    """What moves would be taken for halves of every copy."""
    with pytest.raises(Misuse, match="match every copy's entries alike"):
        federation(IFCA(2, least=2), [0, 1] * 3, **{option: ("copies.0.*",)})
