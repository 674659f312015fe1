"""What a caller of `Federation`, `SecureAverage` and `simulate` may get wrong is one sentence that names the
argument, before round 1.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import FedAdam, FedAvg, Federation, FedProx, FedSGD, SecureAverage
from protocols import PlainSum, simulate
from protocols.errors import Misuse, StackError
from secagg import SecAgg, SecAggPlus

DATA = TensorDataset(torch.randn(24, 4, generator=torch.Generator().manual_seed(1)), torch.arange(24) % 2)


def model() -> torch.nn.Module:
    return torch.nn.Linear(4, 2)


def loader(batch_size: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(part.clone() for part in DATA.tensors)), batch_size=batch_size)


def federation(**options: Any) -> Federation:
    return Federation(**{"model": model, "clients": [loader() for _ in range(3)], **options})


def one(_: Any) -> Any:
    return loader()


def many(client: str, config: Any, more: int) -> Any:
    return loader()


def hinge(outputs: Any, labels: Any) -> Any:
    return outputs.sum()


NOT_WHOLE = ["a", 1.5, None, True, math.nan, [1]]
NOT_REAL = ["a", math.nan, math.inf, -1, True, [0.5]]
OPTIONS: list[tuple[str, Any]] = [
    *(("local_epochs", value) for value in [*NOT_WHOLE, 0, -1]),
    *(("seed", value) for value in NOT_WHOLE),
    *(("min_survivors", value) for value in [*NOT_WHOLE, 0]),
    *(("bits", value) for value in [*NOT_WHOLE, 1, 33]),
    *(("weight_cap", value) for value in [*NOT_WHOLE, 0, 2**24 + 1]),
    *(("learning_rate", value) for value in [*NOT_REAL, 0]),
    *(("fraction", value) for value in [*NOT_REAL, None, 0, 1.01]),
    *(("dropout", value) for value in [*NOT_REAL, None, 1]),
    *(("delta", value) for value in [*NOT_REAL, 0, 1]),
    *(("range", value) for value in [*NOT_REAL, 0]),
    *(("ledger", value) for value in ["x.db", Path("x.db"), 3, object()]),
    *(("policy", value) for value in ["strict", {}, 3]),
    *(("sampling", value) for value in ["all", None, 1]),
    *(("windows", value) for value in ["a=1-2", [1], None, ["a"], ["a=2-1"]]),
    *((name, value) for name in ("spare", "delays") for value in [*NOT_REAL, None, -0.1]),
    *(("integers", value) for value in ["drop", None, 1]),
    *(("metrics", value) for value in ["loss", [1], None, 3]),
    *(("output", value) for value in [3, b"x", ["x"]]),
    *(("evaluate", value) for value in [one, many, "x", 3]),
    *(("optimizer", value) for value in [lambda: None, lambda parameters: None, hinge]),
    *(("criterion", value) for value in [hinge, lambda: None, torch.nn.functional.cross_entropy, 3]),
    *(("model", value) for value in [hinge, lambda width: model()]),
    *(("loss", value) for value in ["x", 3, one]),
    *(("clients", value) for value in [[], {}, {"1": loader(), 1: loader()}, [None], {"a": 3}]),
    *(("names", value) for value in ["ab", 0, -1, True, 2.0, [], ["a", "a"], [1, "1"]]),
]


@pytest.mark.parametrize(("name", "value"), OPTIONS)
def test_a_wrong_option_is_named_when_the_federation_is_made(name: str, value: Any) -> None:
    options = {name: value}
    if name == "names":
        options["clients"] = lambda client, config: loader()
    if name == "evaluate":
        options["test"] = loader()
    with pytest.raises((Misuse, StackError)) as refused:
        federation(**options)
    assert name.rstrip("s") in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("loader_for", [one, many, lambda: loader(), lambda *, client, config: loader()])
def test_a_loader_function_of_another_arity_is_refused_before_it_is_called(loader_for: Any) -> None:
    with pytest.raises(Misuse, match=r"clients: .*client_id, config"):
        federation(clients=loader_for, names=3)


@pytest.mark.parametrize("rounds", [0, -1, 1.0, math.nan, True, "2", None])
def test_rounds_are_a_whole_number_from_one(rounds: Any) -> None:
    with pytest.raises(Misuse, match="rounds"):
        federation().fit(rounds)


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    made = federation(
        local_epochs=np.int64(1),
        seed=np.int32(3),
        fraction=np.float64(1.0),
        weight_cap=np.int64(10),
        output=tmp_path,
    )
    assert made.fit(np.int64(2)).survivors == federation(seed=3, weight_cap=10).fit(2).survivors  # type: ignore[arg-type]


def test_a_callback_that_cannot_be_called_is_refused_before_round_1() -> None:
    with pytest.raises(Misuse, match="on_round"):
        federation().fit(1, on_round=3)  # type: ignore[arg-type]


def test_a_file_where_the_run_s_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(Misuse, match=r"output: .*taken is a file"):
        federation(output=tmp_path / "taken")
    with pytest.raises(Misuse, match=r"output: .*taken is a file"):
        federation(output=tmp_path / "taken" / "deeper")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_learning_rate_beside_an_optimizer_that_has_its_own_is_refused() -> None:
    with pytest.raises(Misuse, match="learning_rate"):
        federation(learning_rate=0.5, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))


def test_an_evaluation_without_anything_to_evaluate_on_is_refused() -> None:
    with pytest.raises(Misuse, match=r"evaluate: .*test"):
        federation(evaluate=lambda model, loader, criterion, device: {})


def test_a_client_may_be_called_like_any_party() -> None:
    parties = {"server": loader(), "client": loader(), "0": loader()}
    for layer in (PlainSum(), SecAgg()):
        assert Federation(model, parties, privacy=[layer]).fit(2).survivors[-1] == tuple(parties)


@pytest.mark.parametrize("rng", [3, "secret", np.random.default_rng(1), object()])
def test_a_simulation_takes_a_secure_generator_or_none(rng: Any) -> None:
    with pytest.raises(Misuse, match="rng"):
        simulate(PlainSum(), np.ones((3, 2), np.int64), rng=rng)


REFERENCE = {"w": torch.zeros(2)}
SENT = {name: {"w": torch.ones(2)} for name in "abc"}


def test_weights_of_clients_that_sent_nothing_are_refused() -> None:
    with pytest.raises(Misuse, match=r"weights: .*'d'"):
        SecureAverage()(SENT, weights={"a": 1, "b": 2, "c": 3, "d": 4}, reference=REFERENCE)
    with pytest.raises(Misuse, match="weights"):
        SecureAverage()(SENT, weights={"a": 1, "b": 2, "c": 3, "a ": 1}, reference=REFERENCE)


def test_weights_may_be_numpy_numbers_and_clients_numbers() -> None:
    sent = dict(enumerate(SENT.values()))
    average = SecureAverage([SecAggPlus()])
    weights = {number: np.int64(number + 1) for number in sent}
    assert torch.equal(average(sent, weights=weights, reference=REFERENCE)["w"], torch.ones(2))  # type: ignore[arg-type]
    assert torch.equal(average(sent, weights=np.array([1, 2, 3]), reference=REFERENCE)["w"], torch.ones(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [True, "1", None, [1], 0, -1, 1.5, math.nan, 10_001])
def test_a_wrong_weight_names_its_client(weight: Any) -> None:
    with pytest.raises(Misuse, match="client 'b'"):
        SecureAverage()(SENT, weights={"a": 1, "b": weight, "c": 3}, reference=REFERENCE)


AVERAGE_OPTIONS: list[tuple[str, Any]] = [
    *(("rounds", value) for value in [*NOT_WHOLE, 0]),
    *(("bits", value) for value in [*NOT_WHOLE, 64]),
    *(("weight_cap", value) for value in [*NOT_WHOLE, 0]),
    *(("range", value) for value in [*NOT_REAL, 0]),
    *(("delta", value) for value in [*NOT_REAL, 0, 1]),
    *(("ledger", value) for value in ["x.db", Path("x.db"), 3]),
    *(("integers", value) for value in ["drop", None, 1]),
    *(("policy", value) for value in ["strict", {}]),
]


@pytest.mark.parametrize(("name", "value"), AVERAGE_OPTIONS)
def test_a_wrong_option_of_the_average_is_named_when_it_is_made(name: str, value: Any) -> None:
    with pytest.raises(Misuse, match=name):
        SecureAverage(**{name: value})


RUN: dict[str, Any] = {
    "learning_rate": 0.1,
    "privacy": [ClientDP(noise_multiplier=1.0, clip=1.0), SecAggPlus()],
}


def adam(rate: float) -> dict[str, Any]:
    return {"optimizer": lambda parameters: torch.optim.Adam(parameters, lr=rate)}


def private(*layers: Any) -> dict[str, Any]:
    return {"privacy": list(layers)}


OTHERWISE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("learning_rate|lr", {}, {"learning_rate": 0.2}),
    ("lr", adam(1e-3), adam(1e-2)),
    ("optimizer", {}, adam(0.1)),
    ("fraction", {}, {"fraction": 0.67}),
    ("sampling", {}, {"sampling": "poisson"}),
    ("dropout", {}, {"dropout": 0.4}),
    ("batch_size", {}, {"clients": [loader(4) for _ in range(3)]}),
    ("examples", {}, {"clients": [DataLoader(TensorDataset(*DATA[:8]), batch_size=8)] * 3}),
    ("seed", {}, {"seed": 1}),
    ("local_epochs", {}, {"local_epochs": 2}),
    ("min_survivors", {}, {"min_survivors": 2}),
    ("integers", {}, {"integers": "sum"}),
    ("delta", {}, {"delta": 1e-3}),
    ("numbers", {}, {"bits": 12}),
    ("clients", {}, {"clients": [loader() for _ in range(4)]}),
    ("strategy", {}, {"strategy": FedSGD()}),
    ("server_lr", {"strategy": FedAvg(0.5)}, {"strategy": FedAvg(0.6)}),
    ("mu", {"strategy": FedProx(0.1)}, {"strategy": FedProx(0.2)}),
    ("beta1", {"strategy": FedAdam()}, {"strategy": FedAdam(beta1=0.5)}),
    (
        "clip",
        private(ClientDP(noise_multiplier=1.0, clip=1.0)),
        private(ClientDP(noise_multiplier=1.0, clip=2.0)),
    ),
    ("noise_multiplier", private(ClientDP(noise_multiplier=1.0)), private(ClientDP(noise_multiplier=0.5))),
    (
        "accountant",
        private(LocalDP(noise_multiplier=1.0)),
        private(LocalDP(noise_multiplier=1.0, accountant="pld")),
    ),
    (
        "noise",
        private(DistributedDP(noise_multiplier=1.0)),
        private(DistributedDP(noise_multiplier=1.0, noise="skellam")),
    ),
    (
        "batch_size",
        private(SampleDP(noise_multiplier=1.0)),
        private(SampleDP(noise_multiplier=1.0, batch_size=4)),
    ),
    ("dropout", private(SecAggPlus(dropout=0.2)), private(SecAggPlus(dropout=0.3))),
    ("secure_sum", private(SecAggPlus()), private(SecAgg())),
    ("layers", {}, private(LocalDP(noise_multiplier=1.0))),
]


@pytest.mark.parametrize(("says", "was", "now"), OTHERWISE)
def test_a_run_is_resumed_as_it_was_made_or_the_difference_is_named(
    says: str, was: dict[str, Any], now: dict[str, Any], tmp_path: Path
) -> None:
    federation(output=tmp_path, **was).fit(1)
    kept = (tmp_path / "checkpoint.npz").read_bytes()
    with pytest.raises(Misuse, match=says) as refused:
        federation(output=tmp_path, **{**was, **now}).fit(2, resume=True)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "checkpoint.npz").read_bytes() == kept
    assert len(federation(output=tmp_path, **was).fit(2, resume=True).history) == 2


@pytest.mark.parametrize(
    "layer",
    [
        lambda: ClientDP(noise_multiplier=1.0, clip="adaptive"),
        lambda: DistributedDP(noise_multiplier=1.0),
        lambda: LocalDP(noise_multiplier=1.0),
        lambda: SampleDP(noise_multiplier=1.0),
    ],
)
def test_layers_that_a_run_has_used_resume_it(layer: Any, tmp_path: Path) -> None:
    used = {"privacy": [layer(), SecAggPlus()], "strategy": FedAdam(), "output": tmp_path}
    federation(**used).fit(1)
    assert len(federation(**used).fit(2, resume=True).history) == 2
