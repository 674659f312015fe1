"""Models of a client's own: leaves that stay (FedPer, local normalisation), Ditto, and a frozen backbone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, SampleDP
from fl import Ditto, FedAvg, Federation, FedProx
from fl.personal import model_of
from fl.registry import STRATEGIES
from protocols.errors import Misuse, StackError
from secagg import SecAgg, SecAggPlus

TARGETS = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])
RATE = 0.2


class Point(torch.nn.Module):
    """A model of one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.at = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))


def step(model: Any, loader: Any, optimizer: Any) -> None:
    """One gradient step on |w - target|^2 / 2."""
    optimizer.zero_grad()
    ((model.at - loader.dataset.tensors[0][0]) ** 2).sum().div(2).backward()
    optimizer.step()


def federation(strategy: Any, privacy: Any = (), **options: Any) -> Federation:
    clients = [DataLoader(TensorDataset(torch.tensor(row)[None])) for row in TARGETS]
    given = {"metrics": (), "bits": 32, "range": 8.0, "learning_rate": RATE, "local_epochs": 3, **options}
    return Federation(Point, clients, step, strategy, privacy, **given)


def ditto(strength: float, rounds: int, epochs: int, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The reference: the paper's Algorithm 1 on quadratics; the rate times `factor` after every local epoch of the run.
    Returns the shared and the personal models.
    """
    w, v = np.zeros(2), np.zeros_like(TARGETS)
    for number in range(rounds):
        own, rates = np.tile(w, (len(TARGETS), 1)), [RATE * factor ** (3 * number + k) for k in range(3)]
        for rate in rates:
            own -= rate * (own - TARGETS)
        for rate in rates * epochs:
            v -= rate * ((v - TARGETS) + strength * (v - w))
        w = own.mean(0)
    return w, v


def own(run: Federation) -> np.ndarray:
    return np.array([model_of(run, name).at.detach().numpy() for name in run.setup.names])


@pytest.mark.parametrize(("strength", "epochs"), [(0.0, 1), (0.5, 1), (2.0, 2)])
def test_ditto_is_the_papers_algorithm(strength: float, epochs: int) -> None:
    (run := federation(Ditto(strength, epochs))).fit(4)
    shared, personal = ditto(strength, 4, epochs)
    assert run.model.at.detach().numpy() == pytest.approx(shared, abs=1e-6)
    assert own(run) == pytest.approx(personal, abs=1e-6)


@pytest.mark.parametrize("per", ["epoch", "step"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_dittos_personal_model_takes_the_step_sizes_of_its_round(per: str, epochs: int) -> None:
    """It took those after the round's, and in the last round none but the last."""
    halving = lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.8)  # noqa: E731 - one line
    (run := federation(Ditto(0.5, epochs), scheduler=halving, scheduler_per=per)).fit(3)
    shared, personal = ditto(0.5, 3, epochs, 0.8)
    assert run.model.at.detach().numpy() == pytest.approx(shared, abs=1e-6)
    assert own(run) == pytest.approx(personal, abs=1e-6)


def test_the_stronger_the_pull_the_nearer_to_the_shared_model() -> None:
    spread = []
    for strength in (0.0, 1.0, 4.0):
        (run := federation(Ditto(strength))).fit(20)
        spread.append(np.abs(own(run) - run.model.at.detach().numpy()).max())
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize("layer", [SecAgg, SecAggPlus])
def test_what_ditto_sends_is_what_fedavg_sends_bit_for_bit(layer: Any) -> None:
    plain = federation(FedAvg()).fit(3).model.at
    (run := federation(Ditto(), [layer()])).fit(3)
    assert torch.equal(run.model.at, plain)
    (bare := federation(Ditto())).fit(3)
    assert np.array_equal(own(run), own(bare))


def test_personal_models_survive_a_stop_and_an_abandoned_round(tmp_path: Path) -> None:
    federation(Ditto(), [SecAgg()], output=tmp_path).fit(2)
    (again := federation(Ditto(), [SecAgg()], output=tmp_path)).fit(4, resume=True)
    (whole := federation(Ditto(), [SecAgg()])).fit(4)
    assert np.array_equal(own(again), own(whole))
    run = federation(Ditto(), [SecAggPlus()], min_survivors=3)
    run.engine.departures = lambda protocol, session: (
        (),
        {"masked-input": ["1"] if session.round == 2 else []},
    )  # type: ignore[attr-defined]
    history = run.fit(3).history
    assert [bool(result.abandoned) for result in history] == [False, True, False]
    (two := federation(Ditto())).fit(2)
    assert own(run) == pytest.approx(own(two), abs=1e-9), "what an abandoned round trained is rolled back"


def test_the_statement_says_that_what_stays_is_outside_epsilon() -> None:
    for run in (federation(Ditto(), [ClientDP(noise_multiplier=1.0), SecAgg()]), federation(FedAvg())):
        said = str(run.fit(1).statement)
        assert ("(ditto) stays in their own stores, outside any epsilon" in said) == (run.setup.keeps_state)


def test_ditto_beside_noise_on_examples_is_refused_with_the_reason() -> None:
    with pytest.raises(
        StackError, match="ditto cannot stand beside it: its personal models are trained on examples"
    ):
        federation(Ditto(), [SampleDP(noise_multiplier=1.0)])


@pytest.mark.parametrize("options", [{"strength": -1.0}, {"epochs": 0}, {"server_lr": 0.0}])
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Misuse):
        Ditto(**options)


def test_ditto_is_built_by_its_name_and_proximal_steps_are_shared_with_fedprox() -> None:
    made: Any = STRATEGIES.build("ditto:strength=0.3,epochs=2")
    assert (made.strength, made.epochs) == (0.3, 2)
    (run := federation(FedProx(mu=1e9), learning_rate=1e-9)).fit(1)
    assert np.abs(run.model.at.detach().numpy()).max() < 1e-6


# -- leaves that stay, and leaves that never train --


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))


def frozen() -> torch.nn.Module:
    model = net()
    model[0].requires_grad_(False)  # type: ignore[operator]
    return model


def loaders() -> list[DataLoader[Any]]:
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(24, 4, generator=drawn)
    return [DataLoader(TensorDataset(part, (part.sum(1) > 0).long()), batch_size=4) for part in x.split(8)]


@pytest.mark.parametrize("stays", [("2.*",), ("1.*",)])
def test_fedper_and_local_normalisation_keep_each_clients_own_leaves(stays: tuple[str, ...]) -> None:
    run = Federation(net, loaders(), privacy=[SecAgg()], stay_local=stays)
    statement = str(run.fit(2).statement)
    assert f"({stays[0]}) stays in their own stores" in statement
    models = [model_of(run, name).state_dict() for name in run.setup.names]
    for name in models[0].keys() - {"1.num_batches_tracked"}:  # all saw as many batches
        alike = all(torch.equal(model[name], models[0][name]) for model in models)
        assert alike != name.startswith(stays[0][:2]), name


def test_the_clip_covers_what_travels_and_nothing_that_stays() -> None:
    layer = ClientDP(noise_multiplier=1e-6, clip=1e-3)
    run = Federation(net, loaders(), privacy=[layer, SecAgg()], stay_local=("1.*", "2.*"), metrics=())
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.fit(1)
    shared = torch.cat([(run.model.state_dict()[n] - before[n]).flatten() for n in ("0.weight", "0.bias")])
    assert float(shared.norm()) <= 1.1e-3
    mine = model_of(run, "0").state_dict()
    assert float((mine["2.weight"] - before["2.weight"]).norm()) > 1e-2


def test_a_frozen_backbone_stays_as_it_was_and_its_head_alone_travels() -> None:
    run = Federation(frozen, loaders(), privacy=[SecAgg()])
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.fit(2)
    sent = {leaf.name for leaf in run.coordinator.schema.protected}
    assert sent == {"1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight", "2.bias"}
    after = run.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in ("0.weight", "0.bias"))
    assert not torch.equal(before["2.weight"], after["2.weight"])


def test_who_has_no_model_of_its_own_is_told_so() -> None:
    with pytest.raises(Misuse, match="no client has a model of its own"):
        model_of(federation(FedAvg()), "0")
    with pytest.raises(Misuse, match="is where the client lives"):
        model_of(federation(Ditto()), "0")
    with pytest.raises(Misuse, match="expected one of the clients"):
        model_of(federation(Ditto()), "9")
