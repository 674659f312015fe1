"""Evaluation on the clients' own data: the numbers are those of the pooled examples, and what they cost is printed."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, Ledger, LocalDP, SampleDP
from dp.accountants import epsilon
from dp.event_json import from_fact
from fl import ClientEvaluation, Federation
from fl.adapters import from_numpy
from fl.callbacks import EarlyStopping, KeepBest
from he import PaillierSum
from protocols.errors import Aborted, BudgetExceeded, Misuse, StackError
from protocols.guarantee import Guarantee
from secagg import SecAgg

torch.manual_seed(3)
X = torch.randn(600, 3)
LABELS = (X[:, 0] + 0.5 * torch.randn(600) > 0).long()
SIZES = (200, 150, 100, 80, 70)


def sites(labels: torch.Tensor = LABELS, sizes: tuple[int, ...] = SIZES) -> dict[str, DataLoader]:
    ends = np.cumsum((0, *sizes))
    return {
        f"site-{i}": DataLoader(TensorDataset(X[a:b], labels[a:b]), 32)
        for i, (a, b) in enumerate(pairwise(ends))
    }


def model(classes: int = 2) -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Linear(3, classes)


def federation(**options: Any) -> Federation:
    return Federation(model, sites(), **options)


@pytest.mark.parametrize("privacy", [[], [SecAgg()], [PaillierSum()]], ids=["none", "secagg", "paillier"])
def test_the_report_is_that_of_the_pooled_examples(privacy: list[Any]) -> None:
    net = model()
    report = ClientEvaluation(sites(), classes=2, privacy=privacy).of(net)
    scores = net(X).softmax(1)[:, 1].detach().numpy()
    assert report.accuracy == pytest.approx(((scores > 0.5) == LABELS.numpy()).mean(), abs=1e-6)
    assert report.loss == pytest.approx(log_loss(LABELS, scores), abs=1e-5)
    assert report.confusion == pytest.approx(confusion_matrix(LABELS, scores > 0.5) / 600, abs=1e-6)
    assert report.auroc == pytest.approx(roc_auc_score(LABELS, scores), abs=0.01)
    assert net.training
    assert len(report.result.survivors[0]) == len(SIZES)


def test_many_classes_have_a_confusion_and_no_auroc() -> None:
    labels = torch.arange(600) % 5
    net = model(5)
    report = ClientEvaluation(sites(labels), classes=5).of(net)
    assert report.confusion == pytest.approx(confusion_matrix(labels, net(X).argmax(1)) / 600, abs=1e-6)
    assert report.auroc is None
    assert set(report.metrics) == {"clients.loss", "clients.accuracy"}


def test_an_example_counts_at_most_the_limit_and_broken_outputs_end_nothing() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x[:, :1] > 0, torch.tensor(float("nan")), torch.tensor([1e30, -1e30]))

    report = ClientEvaluation(sites(), classes=2, limit=4.0).of(Broken())
    assert 0.0 <= report.loss <= 4.0
    assert np.isfinite(report.confusion).all()


def test_a_client_without_examples_changes_nothing() -> None:
    more = sites(sizes=(*SIZES, 0))
    few = ClientEvaluation(sites(), classes=2).of(model())
    assert ClientEvaluation(more, classes=2).of(model()).confusion == pytest.approx(few.confusion, abs=1e-6)


@pytest.mark.filterwarnings("ignore:round ")  # so much noise may drown how many examples there are
@pytest.mark.parametrize("layer", [ClientDP, DistributedDP, LocalDP])
def test_noise_of_its_own_is_priced_beside_training(layer: type, tmp_path: Path) -> None:
    """Every evaluation is an event more: of the statement, of the printed price, of the ledger."""
    own = ClientEvaluation(
        sites(), classes=2, privacy=[layer(noise_multiplier=30.0 if layer is ClientDP else 0.05), SecAgg()]
    )
    ledger = (
        Ledger(tmp_path / "ledger.db", epsilon=1e9, delta=1e-5, accountant="rdp")
        if layer is ClientDP
        else None
    )
    trained = federation(privacy=[ClientDP(noise_multiplier=20.0), SecAgg()], evaluation=own, ledger=ledger)
    result = trained.fit(3)
    names = [event.layer for event in result.statement.events]
    evaluated = [event for event in result.statement.events if event.layer.startswith("evaluation/")]
    assert names.count("client-dp") == 3
    assert len(evaluated) == 3 * (len(SIZES) if layer is LocalDP else 1)
    if layer is ClientDP:
        spent = [from_fact(event) for event in result.statement.events]
        assert result.epsilon == pytest.approx(epsilon(spent, 1e-5, "rdp"), rel=1e-3)
        assert ledger is not None
        assert result.epsilon == pytest.approx(ledger.epsilon(), rel=1e-3)
    else:  # little noise, so that the numbers are there for every draw
        assert all("clients.accuracy" in round.metrics for round in result.history)
    assert any("on data of their own" in note for note in result.statement.notes)


@pytest.mark.parametrize(
    ("privacy", "told"),
    [([], "the server reads every client's own"), ([SecAgg()], "secagg sums them in sessions of their own")],
)
def test_the_statement_says_what_carries_the_evaluation(privacy: list[Any], told: str) -> None:
    """The lines on the secure sum are of training; the server saw each client's accuracy, and nothing said so."""
    evaluation = ClientEvaluation(sites(), classes=2, privacy=privacy)
    assert told in str(federation(privacy=[SecAgg()], evaluation=evaluation).fit(1).statement)


def test_exact_results_beside_noise_are_refused_by_name() -> None:
    plain = ClientEvaluation(sites(), classes=2, privacy=[SecAgg()])
    with pytest.raises(Misuse, match="client-dp noises what clients send"):
        federation(privacy=[ClientDP(noise_multiplier=1.0), SecAgg()], evaluation=plain)
    with pytest.raises(Misuse, match="noises what clients send"):
        federation(privacy=[SecAgg()], evaluation=plain).with_privacy([LocalDP(noise_multiplier=1.0)])
    assert "clients.loss" in federation(privacy=[SecAgg()], evaluation=plain).fit(1).metrics


SERVERS = [ClientDP(noise_multiplier=1.0), SecAgg()]
SHARES = [DistributedDP(noise_multiplier=1.0, clip=1.0), SecAgg()]


@pytest.mark.parametrize(
    "run", [[SampleDP(epsilon=8.0, delta=1e-3)], SHARES, [LocalDP(noise_multiplier=1.0)]]
)
@pytest.mark.parametrize("seen", [SERVERS, SERVERS[:1], SHARES[:1]])
def test_noise_that_the_server_adds_is_refused_beside_a_line_that_holds_against_it(
    run: list[Any], seen: list[Any]
) -> None:
    """The server saw exact sums of the clients' results in a run whose printed line holds against it. Shares of noise
    over a plain sum hold against nobody who reads each.
    """
    own = ClientEvaluation(sites(), classes=2, privacy=seen)
    with pytest.raises(Misuse, match="the server would see this evaluation without its noise"):
        federation(privacy=run, evaluation=own)
    federation(privacy=run, evaluation=ClientEvaluation(sites(), classes=2, privacy=SHARES))
    federation(privacy=SERVERS, evaluation=own)


@pytest.mark.filterwarnings("ignore:round ", "ignore:.*drowns")
@pytest.mark.parametrize(
    "layer,options",
    [(LocalDP, {}), (ClientDP, {"sampling": "poisson", "fraction": 0.5}), (DistributedDP, {})],
)
def test_a_line_counts_an_evaluation_whose_noise_holds_against_more(
    layer: type, options: dict[str, Any]
) -> None:
    """Printed was 2 against the public, who saw the models and the metrics: 2.81 by the same accountant."""
    seen = [layer(epsilon=1.0, delta=1e-6), *[SecAgg()] * (layer is DistributedDP)]
    own = ClientEvaluation(sites(), classes=2, privacy=seen)
    train = ClientDP(epsilon=2.0, delta=1e-5, amplify=bool(options))
    result = federation(privacy=[train], evaluation=own, **options).fit(2)
    spent = [from_fact(event) for event in result.statement.events if event.party in ("", "site-0")]
    both, alone = result.guarantees
    assert both.epsilon == pytest.approx(epsilon(spent, 1e-5, "rdp"), rel=1e-3)
    assert {name.rpartition("/")[0] for name in both.layers} == {"", "evaluation"}
    assert alone.adversary == ("clients" if layer is ClientDP else "server")
    assert str(alone).endswith("for the evaluation alone")
    assert Guarantee.from_json(alone.to_json()) == alone


def test_lines_of_other_neighbours_say_what_they_do_not_cover() -> None:
    own = ClientEvaluation(sites(), classes=2, privacy=[ClientDP(epsilon=1.0)])
    result = federation(privacy=[ClientDP(epsilon=2.0, relation="replace")], evaluation=own).fit(1)
    assert [str(line).rpartition("for the ")[2] for line in result.guarantees] == [
        "training alone",
        "evaluation alone",
    ]
    assert any("no line bounds what both together say" in note for note in result.statement.notes)


def test_lines_of_other_units_say_what_they_do_not_cover() -> None:
    own = ClientEvaluation(sites(), classes=2, privacy=[LocalDP(noise_multiplier=1.0)])
    options = {"loss": lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1])}
    result = federation(privacy=[SampleDP(epsilon=8.0, delta=1e-3)], evaluation=own, **options).fit(1)
    example, evaluated = sorted(map(str, result.guarantees), key=lambda line: "evaluation" in line)
    assert "per example" in example
    assert evaluated.endswith("for the evaluation alone")
    assert example.endswith("for the training alone")
    assert any("no line bounds what both together say" in note for note in result.statement.notes)


def test_a_budget_that_an_evaluation_would_exceed_ends_the_run_before_it(tmp_path: Path) -> None:
    own = ClientEvaluation(sites(), classes=2, privacy=[ClientDP(noise_multiplier=0.5), SecAgg()])
    ledger = Ledger(tmp_path / "ledger.db", epsilon=3.0, delta=1e-5)
    run = federation(privacy=[ClientDP(noise_multiplier=20.0), SecAgg()], evaluation=own, ledger=ledger)
    with pytest.raises(BudgetExceeded):
        run.fit(2)
    assert own.last is None


def test_too_few_answers_leave_a_round_without_them() -> None:
    lossy = ClientEvaluation(sites(), classes=2, privacy=[SecAgg()], dropout=0.9)
    with pytest.raises(Aborted, match="evaluation"):
        lossy.of(model())
    with pytest.warns(UserWarning, match="evaluation"):
        result = federation(evaluation=lossy).fit(1)
    assert not any(name.startswith("clients.") for name in result.metrics)


def test_every_other_round_and_a_resumed_run(tmp_path: Path) -> None:
    def run() -> Federation:
        return federation(output=tmp_path / "run", evaluation=ClientEvaluation(sites(), classes=2, every=2))

    first = run().fit(2)
    result = run().fit(4, resume=True)
    assert ["clients.loss" in round.metrics for round in result.history] == [False, True, False, True]
    assert result.history[1].metrics == pytest.approx(first.history[1].metrics)
    line = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1]
    assert "clients.accuracy" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"classes": 1}, "classes"),
        ({"classes": 2, "every": 0}, "every"),
        ({"classes": 2, "bins": 1}, "bins"),
        ({"classes": 2, "limit": 0.0}, "limit"),
        ({"classes": 2, "ledger": None}, "'ledger'"),
        ({"classes": 2, "speed": 3}, "speed"),
        ({"classes": 2, "privacy": [SampleDP(noise_multiplier=1.0)]}, "trains nothing"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_when_it_is_made(options: dict[str, Any], says: str) -> None:
    with pytest.raises((Misuse, StackError), match=says):
        ClientEvaluation(sites(), **options)


def test_callbacks_may_choose_and_stop_by_what_is_released_and_charged() -> None:
    own = ClientEvaluation(sites(), classes=2, every=2, privacy=[ClientDP(noise_multiplier=0.01, clip=1.0)])
    best = KeepBest("clients.accuracy")
    stop = EarlyStopping("clients.auroc", "max", patience=1, least=2.0)
    layers = [ClientDP(noise_multiplier=1.0, clip=1.0)]
    result = federation(evaluation=own, privacy=layers, callbacks=[best, stop]).fit(rounds=8)
    assert len(result.history) == 4  # rounds 2 and 4 are measured, and no share gains more than 2
    assert best.round in (2, 4)
    with pytest.raises(Misuse, match=r"'clients.f1' never comes"):
        federation(evaluation=own, callbacks=[KeepBest("clients.f1")]).fit(rounds=1)


def test_outputs_of_another_shape_name_what_was_expected() -> None:
    with pytest.raises((Misuse, Aborted), match=r"\(32, 2\)"):
        ClientEvaluation(sites(), classes=2).of(model(5))
    with pytest.raises(Misuse, match=r"fl\.ClientEvaluation"):
        federation(evaluation=len)


def test_labels_and_batches_that_cannot_be_measured_are_named() -> None:
    ignored = LABELS.clone()
    ignored[3] = -100  # what torch's own losses leave out
    said = "expected labels from 0 to 1, got some from -100 to 1: leave such examples out"
    assert (
        said in ClientEvaluation(sites(ignored), classes=2).of(model()).result.history[0].refusals["site-0"]
    )
    named = {"a": [{"x": X, "y": LABELS}]}
    with pytest.raises(Misuse, match=r"expected batches \(inputs, labels\), two tensors, got a dict"):
        ClientEvaluation(named, classes=2).of(model())
    with pytest.raises(Misuse, match="outputs of a torch module, and these weights are none"):
        from_numpy({"w": X.numpy()}, len, {"a": X.numpy()}, evaluation=ClientEvaluation(sites(), classes=2))


@pytest.mark.parametrize("classes", [2, 5])
def test_a_model_that_is_broken_is_worse_than_chance(classes: int) -> None:
    net = model(classes)
    torch.nn.init.constant_(net.weight, torch.nan)  # type: ignore[arg-type]
    report = ClientEvaluation(sites(), classes=classes).of(net)
    assert (report.accuracy, report.loss) == pytest.approx((0.0, 16.0), abs=1e-6)
    assert report.auroc in (None, pytest.approx(0.0, abs=1e-6))
