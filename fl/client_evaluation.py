"""What the clients' own data says of a model: loss, accuracy, confusion and AUROC, by one secure sum of every client's
shares. What does not belong here: the server's test data (`coordinator`), training metrics (`metrics`).

Each evaluation is a round of its own without training: every client's vector of shares is what an update is otherwise,
so that any secure sum and any layer of client-level noise fits, and noise is charged for. Choosing a model or a round
by such numbers costs nothing more: they are released.
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl.account import Account
from fl.adapters.array_data import Arrays
from fl.federation import Federation
from fl.federation_setup import Loaders
from fl.registry import layers_of
from fl.run_result import Result
from protocols import numbers
from protocols.errors import Aborted, Misuse
from protocols.guarantee import EVALUATION

HALF = 0.5
"""Scales four vectors of shares, each of norm at most 1, to a vector of norm at most 1: what a layer clips to."""
PREFIX = "clients."
_OWN = (
    "ledger",
    "output",
    "test",
    "evaluate",
    "strategy",
    "train",
    "optimizer",
    "criterion",
    "metrics",
    "evaluation",
)


@dataclass(frozen=True, eq=False)
class ClientReport:
    """What the clients' data says of one model. loss: mean over their examples, each at most the limit. accuracy: share
    of the examples, in [0, 1]. confusion: float64 [classes, classes], the share of all examples that are of class i and
    were taken for j. auroc: of class 1 against class 0, by a histogram; None for more than two classes. Under noise all
    are estimates, cut to their range; means are over examples, or over clients where noise hides how many each holds.
    result: survivors, statement and guarantees of the sum.
    """

    loss: float
    accuracy: float
    confusion: NDArray[np.float64]
    auroc: float | None
    result: Result = field(repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers as metrics of a round: `clients.loss`, `clients.accuracy`, `clients.auroc`."""
        found = {"loss": self.loss, "accuracy": self.accuracy, "auroc": self.auroc}
        return {PREFIX + name: value for name, value in found.items() if value is not None}


class _Shares:
    """A client's loop: no training, its examples' shares in place of weights."""

    own_steps = (
        "an evaluation trains nothing that it could protect. ClientDP, LocalDP, DistributedDP at client level and "
        "every secure sum work"
    )

    def __init__(self, owner: "ClientEvaluation", model: torch.nn.Module) -> None:
        self.owner, self.model = owner, model

    def __call__(self, model: Arrays, loader: Any, device: Any = "cpu") -> None:
        sums, seen = self.owner.zeros(), 0
        self.model.eval()
        with torch.no_grad():
            for batch in loader:
                inputs, labels = self._pair(batch)
                outputs = self.model(inputs.to(device)).double().cpu()
                self.owner.add(sums, outputs, labels.cpu())
                seen += len(labels)
        if seen:
            model.take({name: HALF * array / seen for name, array in sums.items()}, "evaluation")

    def _pair(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if (
            isinstance(batch, list | tuple)
            and [isinstance(part, torch.Tensor) for part in batch] == [True] * 2
        ):
            return batch[0], batch[1]
        raise Misuse(
            f"evaluation: expected batches (inputs, labels), two tensors, got a {type(batch).__name__}: let the "
            "loaders give such, or give the server test= and evaluate="
        )


class ClientEvaluation:
    """Evaluation of a classifier on the clients' own data, through a secure sum.

    - clients: loaders of (inputs, int64 labels), as `Federation` takes them.
    - classes: how many, >= 2; the model gives a logit for each.
    - every: evaluate after each so many rounds of a `Federation(evaluation=...)`, >= 1 (default: 1).
    - bins: of the histogram behind the AUROC of two classes, >= 2; pairs within a bin count half (default: 128).
    - limit: the most that one example's cross entropy counts, > 0 (default: 16).
    - privacy: layers as `Federation` takes them; an epsilon is the price of one evaluation, and no client's vector
      is longer than a clip of 1 (default: none).
    - options: others of `Federation`: names, bits, dropout, policy, ...

    Raises Misuse for a value out of range, and what `Federation` raises. `of` raises Aborted where too few answer.

        held_out = ClientEvaluation(loaders, classes=2, privacy=[SecAgg()])
        held_out.of(make()).accuracy
        Federation(make, loaders, evaluation=held_out)
    """

    def __init__(
        self,
        clients: Loaders,
        *,
        classes: int,
        every: int = 1,
        bins: int = 128,
        limit: float = 16.0,
        privacy: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        if taken := [name for name in _OWN if name in options]:
            raise Misuse(f"evaluation: {taken[0]!r} is the federation's, or has no meaning in an evaluation")
        self.classes = numbers.whole("classes", classes, 2)
        self.every, self.bins = numbers.whole("every", every, 1), numbers.whole("bins", bins, 2)
        self.limit = numbers.positive("limit", limit)
        self.clients, self.privacy = clients, layers_of(privacy)
        self.options = {"bits": 32, "range": 1.0, **options}
        measured = ("loss", "accuracy", "auroc")[: 3 if classes == 2 else 2]
        self.names = tuple(PREFIX + name for name in measured)
        self.last: ClientReport | None = None
        one = self.federation(torch.nn.Identity())  # what cannot work is said now
        self.kinds = one.setup.stack.kinds(one.coordinator.planned(1))
        self.hides_from_server = "server" in one.setup.stack.adversaries.values()
        total = one.setup.stack.secure_sum
        carried = f"{total.name} sums them in sessions of their own, of which the lines on training's sum say nothing"
        self.told = (
            f"after every {f'{every} rounds' if every > 1 else 'round'} the clients' mean loss, accuracy and confusion "
            "on data of their own are released; "
            + ("the server reads every client's own" if total.server_sees_vectors else carried)
        )

    def federation(self, model: torch.nn.Module) -> Federation:
        """Return the round that evaluates `model`, as a Federation."""
        return Federation(
            partial(Arrays, self.zeros()),
            self.clients,
            _Shares(self, model),
            privacy=deepcopy(self.privacy),
            metrics=(),
            **self.options,
        )

    def of(self, model: torch.nn.Module, run: Federation | None = None) -> ClientReport:
        """Return what the clients' data says of the model, and keep it as `last`.

        run: whose model it is; the evaluation is carried as its rounds are. Raises Aborted where too few answer.
        """
        federation = self.federation(model)
        if run is not None:
            _beside(federation, run)
        training = model.training
        try:
            result = federation.fit(rounds=1)
        finally:
            model.train(training)
        if abandoned := result.history[0].abandoned:
            raise Aborted(f"evaluation: {abandoned}")
        self.last = self._report(result)
        return self.last

    def charge(self, number: int, account: Account) -> bool:
        """Charge a run's account for the evaluation after round `number`, before anything is sent; return whether one
        is due. Raises BudgetExceeded for a charge that the ledger does not allow.
        """
        if number % self.every:
            return False
        sample = self.federation(torch.nn.Identity()).coordinator.sample()
        spent = sample.plan.events(sample.clients)
        account.charge([replace(event, layer=EVALUATION + event.layer) for event in spent], number)
        return True

    def after(self, number: int, run: Federation) -> dict[str, float]:
        """Return the metrics of a run's model after a round; none where too few answer."""
        try:
            return self.of(run.model, run).metrics
        except Aborted as error:
            warnings.warn(f"round {number}: {error.reason}", stacklevel=2)
            return {}

    # -- one client --

    def zeros(self) -> dict[str, NDArray[np.float64]]:
        """The vector's parts: loss and accuracy, the confusion, a histogram of scores by label."""
        scores = {"scores": np.zeros((2, self.bins))} if self.classes == 2 else {}
        return {"means": np.zeros(2), "confusion": np.zeros((self.classes, self.classes)), **scores}

    def add(self, sums: dict[str, NDArray[np.float64]], outputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch to a client's sums. Raises Misuse for outputs or labels of another shape."""
        if outputs.shape != (len(labels), self.classes) or labels.dtype != torch.int64:
            raise Misuse(
                f"evaluation: expected outputs of shape ({len(labels)}, {self.classes}) and int64 labels, got "
                f"{tuple(outputs.shape)} and {labels.dtype}"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise Misuse(
                f"evaluation: expected labels from 0 to {self.classes - 1}, got some from {int(labels.min())} to "
                f"{int(labels.max())}: leave such examples out"
            )
        outputs = self._counted(outputs, labels)
        losses = torch.nn.functional.cross_entropy(outputs, labels, reduction="none").clamp(0.0, self.limit)
        taken = outputs.argmax(1)
        sums["means"] += [float(losses.sum()) / self.limit, float((taken == labels).sum())]
        np.add.at(sums["confusion"], (labels.numpy(), taken.numpy()), 1.0)
        if "scores" in sums:
            scores = (outputs.softmax(1)[:, 1] * self.bins).long().clamp(0, self.bins - 1)
            np.add.at(sums["scores"], (labels.numpy(), scores.numpy()), 1.0)

    def _counted(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return outputs in which an example with NaN is wrong, at the limit of the loss: a broken model is no coin."""
        wrong = torch.nn.functional.one_hot((labels + 1) % self.classes, self.classes) * 2 * self.limit
        return torch.where(outputs.isnan().any(1, keepdim=True), wrong.to(outputs), torch.nan_to_num(outputs))

    # -- the sum --

    def _report(self, result: Result) -> ClientReport:
        found = result.model.weights()
        whole = float(found["confusion"].sum())  # one half without noise
        if whole <= 0:
            raise Aborted(
                "evaluation: no client has examples, or noise drowns how many have: less noise, more clients"
            )
        loss, accuracy = np.clip(found["means"] / whole, 0.0, 1.0)
        confusion = np.maximum(found["confusion"], 0.0) / whole
        scores = found.get("scores")
        auroc = None if scores is None else _auroc(np.maximum(scores, 0.0))
        return ClientReport(float(loss) * self.limit, float(accuracy), confusion, auroc, result)


def _beside(evaluation: Federation, run: Federation) -> None:
    """Let the round that evaluates a run's model bind it, and be carried as the run's rounds are."""
    reference = run.coordinator.reference()
    evaluation.coordinator.config = reference.digest
    stack = evaluation.setup.stack.over_network()
    if (beside := run.engine.beside(stack.secure_sum, reference.shown)) is not None:
        evaluation.setup.stack, evaluation.engine = stack, beside


def _auroc(scores: NDArray[np.float64]) -> float:
    """The chance that a positive scores above a negative, ties half; 0.5 where one of them is missing."""
    negative, positive = scores
    pairs = float(negative.sum() * positive.sum())
    if pairs <= 0:
        return 0.5
    above = positive[::-1].cumsum()[::-1] - positive
    return float((negative * (above + positive / 2)).sum()) / pairs
