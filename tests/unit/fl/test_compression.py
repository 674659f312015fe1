"""Fewer bits per value and fewer values, inside the sum, with what is left out sent later."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, NormBound, SampleDP
from fl import IFCA, RFA, FedAvg, FedDyn, Federation, FewBits, LowRank, RandomK
from fl.registry import PRIVACY
from fl.strategies.base import Extras
from protocols.errors import Misuse, StackError
from secagg import SecAgg, SecAggPlus

SIZE, RATE = 40, 0.3
TARGETS = np.random.default_rng(5).uniform(-1, 1, (4, SIZE))


class Point(torch.nn.Module):
    """A model of one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.at = torch.nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))


def step(model: Any, loader: Any, optimizer: Any) -> None:
    """One gradient step on |w - target|^2 / 2."""
    optimizer.zero_grad()
    ((model.at - loader.dataset.tensors[0][0]) ** 2).sum().div(2).backward()
    optimizer.step()


def federation(privacy: Any, **options: Any) -> Federation:
    clients = [DataLoader(TensorDataset(torch.tensor(row)[None])) for row in TARGETS]
    given = {"metrics": (), "bits": 24, "range": 8.0, "learning_rate": RATE, **options}
    return Federation(Point, clients, step, FedAvg(weighted=False), privacy, **given)


def at(run: Federation) -> np.ndarray:
    return np.array(run.model.at.detach().numpy())


def reference(compress: Any, rounds: int) -> np.ndarray:
    """Error feedback by the paper's Algorithm 2 (Karimireddy et al. 2019), with a compression of (p, round)."""
    w, e = np.zeros(SIZE), np.zeros_like(TARGETS)
    for number in range(1, rounds + 1):
        p = RATE * (TARGETS - w) + e
        sent = compress(p, number)
        e = p - sent
        w = w + sent.mean(0)
    return w


@pytest.mark.parametrize("bits", [1, 2, 4, 16])
def test_few_bits_are_the_nearest_levels_with_error_feedback(bits: int) -> None:
    levels = np.linspace(-0.5, 0.5, 1 << bits)

    def nearest(p: np.ndarray, number: int) -> np.ndarray:
        return levels[np.abs(p[..., None] - levels).argmin(-1)]

    (run := federation([FewBits(bits, 0.5)])).fit(8)
    assert at(run) == pytest.approx(reference(nearest, 8), abs=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_random_k_sends_a_shared_share_and_the_rest_later(share: float) -> None:
    chosen = list[np.ndarray]()

    class Seen(RandomK):
        def decode(self, aggregate: Any, opened: Any, facts: Any) -> Any:
            chosen.append(self._places(opened.given.dimension, facts))
            return super().decode(aggregate, opened, facts)

    (run := federation([Seen(share)])).fit(6)
    assert {len(places) for places in chosen} == {round(share * SIZE)}

    def masked(p: np.ndarray, number: int) -> np.ndarray:
        keep = np.isin(np.arange(SIZE), chosen[number - 1])
        return np.where(keep, p, 0.0)

    assert at(run) == pytest.approx(reference(masked, 6), abs=1e-5)
    if share < 1:
        assert len({tuple(places) for places in chosen}) == 6, "every round has places of its own"


@pytest.mark.parametrize("layer", [FewBits(1, 0.5), FewBits(4, 0.5), RandomK(0.25)])
def test_with_error_feedback_the_models_gather_around_the_uncompressed_optimum(layer: Any) -> None:
    models, run = list[np.ndarray](), federation([layer])
    run.fit(100, on_round=lambda result: models.append(at(run)))
    assert np.mean(models[50:], axis=0) == pytest.approx(TARGETS.mean(0), abs=0.03)


@pytest.mark.parametrize("layer", [FewBits(1, 0.2), FewBits(4, 0.2), RandomK(0.2)])
@pytest.mark.parametrize("masks", [SecAgg, SecAggPlus])
def test_compression_under_masks_is_that_of_the_plain_sum_bit_for_bit(layer: Any, masks: Any) -> None:
    (masked := federation([layer, masks()])).fit(3)
    (plain := federation([layer])).fit(3)
    assert np.array_equal(at(masked), at(plain))


def test_bytes_as_sent_follow_the_bits_and_the_share() -> None:
    many = 4000

    def sent(*layers: Any) -> float:
        clients = [DataLoader(TensorDataset(torch.zeros(1, many, dtype=torch.float64))) for _ in range(4)]
        make = lambda: torch.nn.Linear(many, 1, bias=False)  # noqa: E731 - one line
        loop = lambda model, loader, optimizer: None  # noqa: E731 - one line
        run = Federation(make, clients, loop, FedAvg(weighted=False), [*layers, SecAgg()], metrics=())
        return run.fit(1).history[0].bytes_up_per_client

    base, tenth = sent(), sent(RandomK(0.1))
    overhead = sent(RandomK(1 / many))
    assert (tenth - overhead) / (base - overhead) == pytest.approx(0.1, rel=0.05)
    for bits in (1, 4, 8):  # a sum of four needs 2 bits more, and one for the sign of the ring
        few = sent(FewBits(bits, 0.1))
        assert 8 * (few - overhead) / many <= bits + 4


def test_a_residual_is_rolled_back_with_its_round_and_survives_a_stop(tmp_path: Path) -> None:
    run = federation([FewBits(2, 0.2), SecAggPlus()], min_survivors=4)
    run.engine.departures = lambda protocol, session: (
        (),
        {"masked-input": ["1"] if session.round == 2 else []},
    )  # type: ignore[attr-defined]
    assert [bool(result.abandoned) for result in run.fit(4).history] == [False, True, False, False]
    (three := federation([FewBits(2, 0.2)])).fit(3)
    assert np.array_equal(at(run), at(three))
    federation([FewBits(2, 0.2)], output=tmp_path).fit(2)
    (again := federation([FewBits(2, 0.2)], output=tmp_path)).fit(3, resume=True)
    assert np.array_equal(at(again), at(three))


def test_a_residual_is_outside_epsilon_and_the_statement_says_so() -> None:
    run = federation([RandomK(0.5), ClientDP(noise_multiplier=1.0, clip=0.5), SecAgg()])
    statement = str(run.fit(2).statement)
    assert "(random-k) stays in their own stores, outside any epsilon" in statement
    assert "fewer bytes, no privacy" in statement


def test_the_clip_comes_last_whatever_a_residual_holds() -> None:
    """A layer after random-k sees a vector of its clip at most, however much was left out before."""
    norms: list[float] = []

    class Clip(ClientDP):
        def encode(self, contribution: Any, given: Any, facts: Any) -> Any:
            made = super().encode(contribution, given, facts)
            norms.append(float(np.linalg.norm(made.vector)))
            return made

    federation([RandomK(0.1), Clip(noise_multiplier=1e-6, clip=0.25)]).fit(10)
    assert max(norms) <= 0.25


def test_layers_of_noise_compose_in_the_sound_order_alone() -> None:
    noise = {"noise_multiplier": 1.0, "clip": 0.5}
    for first in (RandomK(0.5), FewBits(4, 0.5)):
        with pytest.raises(StackError, match=f"{first.name} adds what earlier rounds left out"):
            federation([ClientDP(**noise), first, SecAgg()]).fit(1)
    with pytest.raises(StackError, match="client-dp clips a vector of floats"):
        federation([FewBits(4, 0.5), ClientDP(**noise), SecAgg()]).fit(1)
    with pytest.raises(StackError, match="distributed-dp takes a vector of floats"):
        federation([FewBits(4, 0.5), DistributedDP(**noise), SecAgg()]).fit(1)
    with pytest.raises(StackError, match="distributed-dp plans for the whole update"):
        federation([RandomK(0.5), DistributedDP(**noise), SecAgg()]).fit(1)


@pytest.mark.parametrize("first", [RandomK(0.5), LowRank(1)])
@pytest.mark.parametrize("second", [RandomK(0.5), LowRank(2), FewBits(4, 0.5)])
def test_two_kinds_of_compression_are_refused(first: Any, second: Any) -> None:
    """The second one's residual would be added to other coordinates than it was kept of: a value whose gradient was
    always 0 stood at 1.4 after 40 rounds.
    """
    loaders = [DataLoader(TensorDataset(torch.randn(4, 6), torch.tensor([0, 1, 2, 3]))) for _ in range(3)]
    with pytest.raises(StackError, match=r"take one kind of compression|expected each layer once"):
        Federation(lambda: torch.nn.Linear(6, 4), loaders, privacy=[first, second, SecAgg()]).fit(1)


@pytest.mark.parametrize("layer", [RandomK(0.5), FewBits(4, 0.5), LowRank(1)])
def test_no_residual_carries_past_a_norm_bound(layer: Any) -> None:
    """Behind it one client's vector in a sum was 4.4 bounds long."""
    with pytest.raises(StackError, match="adds what earlier rounds left out"):
        federation([NormBound(0.1), layer, SecAgg()]).fit(1)
    if not isinstance(layer, FewBits):
        federation([layer, NormBound(0.1), SecAgg()]).fit(1)


class Scaled(FedAvg):
    """q-FedAvg as one would write it: the update times what the loop says of its own loss."""

    def extras(self, task: Any, difference: Any, reported: Any, facts: Any) -> Extras:
        heard.append(dict(reported))
        return Extras(vector=difference * reported.get("loss", 1.0))


class Said(Scaled):
    """The same, by its own word made of protected values alone: no metric is there to scale by."""

    beyond_examples = ""


heard: list[dict[str, float]] = []


def test_beside_noise_on_examples_no_vector_follows_a_metric() -> None:
    data = TensorDataset(torch.randn(8, 3), torch.zeros(8).long())
    heard.clear()
    for strategy in (Scaled(weighted=False), Said(weighted=False)):
        layer = SampleDP(noise_multiplier=1.0, batch_size=4, examples=8)
        make = lambda: torch.nn.Linear(3, 2)  # noqa: E731 - one line
        run = Federation(make, [DataLoader(data, batch_size=4)], strategy=strategy, privacy=[layer])
        if isinstance(strategy, Said):
            run.fit(1)
        else:
            with pytest.raises(StackError, match="does not say that it is made from"):
                run.fit(1)
    assert heard == [{}, {}]


def test_behind_noise_on_examples_a_residual_is_made_of_protected_values() -> None:
    clients = [
        DataLoader(TensorDataset(torch.randn(8, 3), torch.zeros(8).long()), batch_size=4) for _ in range(3)
    ]
    layers = [SampleDP(noise_multiplier=1.0), RandomK(0.5), SecAgg()]
    run = Federation(lambda: torch.nn.Linear(3, 2), clients, privacy=layers, metrics=())
    with_it = run.fit(2)
    alone = [SampleDP(noise_multiplier=1.0), SecAgg()]
    without = Federation(lambda: torch.nn.Linear(3, 2), clients, privacy=alone, metrics=()).fit(2)
    assert with_it.epsilon == without.epsilon


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: FewBits(0), "1 to 16"),
        (lambda: FewBits(17), "1 to 16"),
        (lambda: FewBits(4, 0.0), "> 0"),
        (lambda: RandomK(0.0), r"\(0, 1\]"),
        (lambda: RandomK(1.5), r"\(0, 1\]"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(made: Any, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        made()


def test_layers_are_built_by_name() -> None:
    few: Any = PRIVACY.build("few-bits:bits=1,range=0.01")
    assert (few.bits, few.range) == (1, 0.01)
    assert PRIVACY.build("random-k:share=0.2").share == 0.2  # type: ignore[attr-defined]


def test_what_reckons_with_what_arrived_is_refused_beside_a_residual() -> None:
    clients = [DataLoader(TensorDataset(torch.tensor(row)[None])) for row in TARGETS]
    for strategy in (FedDyn(), RFA(damped=True)):
        with pytest.raises(
            StackError, match=r"random-k sends later what it leaves out, and .* reckons with what"
        ):
            Federation(Point, clients, step, strategy, [RandomK(), SecAgg()], metrics=())


def test_a_round_of_counts_leaves_the_residual_as_it_is() -> None:
    def loss(model: Any, batch: Any) -> Any:
        return ((model.at - batch[0][0]) ** 2).mean()

    class Apart(Point):
        def __init__(self) -> None:
            super().__init__()
            self.at = torch.nn.Parameter(torch.rand(SIZE, dtype=torch.float64))

    clients = [DataLoader(TensorDataset(torch.tensor(row)[None])) for row in (*TARGETS, *TARGETS)]
    given = {"metrics": (), "loss": loss, "range": 8.0, "learning_rate": RATE}
    for layer in (RandomK(0.25), LowRank(2)):
        counting = IFCA(2, least=2)
        counting.undelayed = False  # a strategy of one's own that counts first, and may send later
        run = Federation(Apart, clients, step, counting, [layer, SecAgg()], **given)
        assert [result.abandoned for result in run.fit(6).history] == [None] * 6
        assert all(np.isfinite(copy.at.detach().numpy()).all() for copy in run.model.copies)


# -- low rank --


class Matrix(torch.nn.Module):
    """A model of a matrix and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.at = torch.nn.Parameter(torch.zeros(6, 8, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))


MATRICES = np.random.default_rng(7).uniform(-1, 1, (3, 51))


def drawn_near(model: Any, loader: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    flat = torch.cat([model.at.flatten(), model.bias])
    ((flat - loader.dataset.tensors[0][0]) ** 2).sum().div(2).backward()
    optimizer.step()


def low_rank(privacy: Any, **options: Any) -> Federation:
    clients = [DataLoader(TensorDataset(torch.tensor(row)[None])) for row in MATRICES]
    given = {"metrics": (), "bits": 28, "range": 8.0, "learning_rate": RATE, **options}
    return Federation(Matrix, clients, drawn_near, FedAvg(weighted=False), privacy, **given)


def flat(run: Federation) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in run.model.parameters()])


def test_low_rank_is_one_product_a_round_with_a_shared_basis_and_error_feedback() -> None:
    bases: list[np.ndarray] = []

    class Seen(LowRank):
        def decode(self, aggregate: Any, opened: Any, facts: Any) -> Any:
            bases.append(self._pieces(facts, opened.given.dimension)[0][2])  # type: ignore[arg-type]
            return super().decode(aggregate, opened, facts)

    (run := low_rank([Seen(2)])).fit(4)
    w, e, last = np.zeros(51), np.zeros_like(MATRICES), np.zeros((6, 8))
    for number, basis in enumerate(bases):
        p = RATE * (MATRICES - w) + e
        m = p[:, :48].reshape(3, 6, 8)
        sent = p.copy()
        sent[:, :48] = ((basis @ basis.T @ m) if number % 2 else (m @ basis @ basis.T)).reshape(3, 48)
        if number:  # the basis is that of the last round's mean
            assert (
                np.linalg.norm(last - (basis @ basis.T @ last if number % 2 else last @ basis @ basis.T))
                < 1e-4
            )
        last = sent.mean(0)[:48].reshape(6, 8)
        e, w = p - sent, w + sent.mean(0)
    assert flat(run) == pytest.approx(w, abs=1e-5)


def test_low_rank_sends_less_and_ends_where_the_whole_does() -> None:
    (run := low_rank([LowRank(2)])).fit(150)
    assert flat(run) == pytest.approx(MATRICES.mean(0), abs=0.02)
    assert [run.coordinator.open(1, run.setup.names).plan.signals[1].dimension] in ([2 * 8 + 3], [2 * 6 + 3])
    whole = low_rank([LowRank(6)])
    whole.fit(1)
    assert whole.coordinator.sample().plan.signals[1].dimension == 51, (
        "as many columns as the matrix: sent whole"
    )


@pytest.mark.parametrize("masks", [SecAgg, SecAggPlus])
def test_low_rank_under_masks_is_that_of_the_plain_sum_bit_for_bit(masks: Any) -> None:
    (masked := low_rank([LowRank(2), masks()])).fit(4)
    (plain := low_rank([LowRank(2)])).fit(4)
    assert np.array_equal(flat(masked), flat(plain))


def test_low_rank_goes_on_where_it_was_stopped_and_composes_with_noise(tmp_path: Path) -> None:
    low_rank([LowRank(2)], output=tmp_path).fit(3)
    (again := low_rank([LowRank(2)], output=tmp_path)).fit(5, resume=True)
    (whole := low_rank([LowRank(2)])).fit(5)
    assert np.array_equal(flat(again), flat(whole))
    noise = {"noise_multiplier": 1.0, "clip": 0.5}
    with_it = low_rank([LowRank(2), ClientDP(**noise), SecAgg()]).fit(3)
    assert with_it.epsilon == low_rank([ClientDP(**noise), SecAgg()]).fit(3).epsilon
    with pytest.raises(Misuse, match="at least 1"):
        LowRank(0)
