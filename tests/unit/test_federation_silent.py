"""What would go through without a word and train nothing, or spend a budget for nothing, ends in one clear sentence."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from dp import ClientDP, Ledger
from fl import Federation
from protocols.errors import Misuse
from secagg import SecAgg
from tests.unit.test_federation_misuse import DATA, Trainer, fit, loader, model, train


def test_a_criterion_that_is_a_default_of_the_loop_stays_unless_another_one_is_named() -> None:
    own, seen = torch.nn.CrossEntropyLoss(label_smoothing=0.1), list[Any]()

    def with_default(model: Any, loader: Any, optimizer: Any, criterion: Any = own) -> None:
        seen.append(criterion)

    def measure(model: Any, loader: Any, criterion: Any = own) -> dict[str, float]:
        seen.append(criterion)
        return {}

    fit(train=with_default, test=loader(), evaluate=measure)
    assert seen
    assert all(each is own for each in seen)
    fit(train=with_default, criterion=torch.nn.NLLLoss)
    assert isinstance(seen[-1], torch.nn.NLLLoss)


@pytest.mark.parametrize(
    "options, said",
    [
        (
            {"train": lambda model, loader: model.state_dict()},
            "returned arrays.*trains the model that it is given, in place",
        ),
        (
            {"clients": {"a": (torch.zeros(4, 4), torch.zeros(4))}},
            r"client 'a': .*got a tuple of arrays: wrap it in a DataLoader\(TensorD",
        ),
        ({"clients": {"a": [torch.zeros(4, 4), torch.zeros(4)]}}, "client 'a': .*got a list of arrays"),
        ({"test": (torch.zeros(4, 4), torch.zeros(4))}, "test: .*got a tuple of arrays"),
        ({"clients": {"a": (batch for batch in [DATA])}}, "client 'a': its loader has no length"),
        ({"privacy": ["secag"]}, "No privacy layer is named 'secag'. Did you mean 'secagg'"),
        ({"clients": train, "train": loader()}, "loaders, or a function loader_for.*got train"),
    ],
)
def test_what_would_pass_and_train_nothing_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Misuse, match=said):
        fit(**options)


def test_a_list_of_batches_of_one_tensor_each_is_a_loader() -> None:
    def unlabelled(model: Any, loader: Any, optimizer: Any) -> None:
        for x in loader:
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()

    assert fit(clients={"a": [torch.ones(2, 4)] * 3}, train=unlabelled).history


def test_a_loop_that_trains_another_model_than_the_one_it_is_given_is_said_once() -> None:
    def elsewhere(model: Any, loader: Any) -> None:
        Trainer().own(copy.deepcopy(model), loader)

    with pytest.warns(UserWarning, match="client '0'.*training changed nothing: .* in place") as said:
        fit(train=elsewhere)
    assert len(said) == 1


@pytest.mark.parametrize(
    "evaluate, said",
    [
        (lambda model, loader: 1.0, r"evaluate: expected a dict of floats, got 1.0"),
        (lambda model, loader: {"a": 1 / 0}, r"evaluate: it raised ZeroDivisionError: division by zero"),
    ],
)
def test_an_evaluation_that_fails_is_said_before_anything_is_charged(
    evaluate: Any, said: str, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.db", epsilon=99.0, delta=1e-5)
    noisy = [ClientDP(noise_multiplier=1.0, delta=1e-5, clip=1.0), SecAgg()]
    with pytest.raises(Misuse, match=said):
        fit(evaluate=evaluate, test=loader(), privacy=noisy, ledger=ledger)
    assert not list(ledger.entries())


def test_an_evaluation_that_fails_later_loses_no_round(tmp_path: Path) -> None:
    """What was charged and moved the model is in the history, the files and the ledger; the run goes on from there."""
    calls, ledger = [0], Ledger(tmp_path / "ledger.db", epsilon=99.0, delta=1e-5)

    def measure(model: Any, loader: Any) -> dict[str, float]:
        calls[0] += 1
        return {"a": 1 / (3 - calls[0])}  # fails after round 2: the first call is before round 1

    def federation() -> Federation:
        noisy = [ClientDP(noise_multiplier=1.0, delta=1e-5, clip=1.0), SecAgg()]
        kept: dict[str, Any] = {"output": tmp_path / "run", "ledger": ledger, "privacy": noisy}
        return Federation(model, [loader()] * 3, train, test=loader(), evaluate=measure, **kept)

    broken = federation()
    with pytest.raises(Misuse, match=r"ZeroDivisionError.* \(round 2 is kept without it: mend it.* --resume"):
        broken.fit(3)
    assert [entry.number for entry in broken.result.history] == [1, 2]
    assert len(ledger.entries()) == 2
    assert broken.result.epsilon == pytest.approx(broken.result.history[-1].guarantees[0].epsilon)
    again = federation()
    result = again.fit(3, resume=True)
    assert [bool(entry.metrics) for entry in result.history] == [True, False, True]
    assert len(ledger.entries()) == 3
    calls[0] = 0
    nowhere = Federation(model, [loader()] * 3, train, test=loader(), evaluate=measure)
    with pytest.raises(Misuse, match=r"round 2 is kept without it: Federation\.result holds it"):
        nowhere.fit(3)
    assert [entry.number for entry in nowhere.result.history] == [1, 2]
