"""`text`: a character model of Dickens, tuned over Shakespeare's speaking roles as clients, beside central tuning.

The model is trained on Dickens first, once for all arms. Then a few roles are asked in every round, train one pass over
what they say, and a masked sum has their mean; centrally the same steps are taken, one after the other, over all roles'
windows shuffled together. Bits per character are those of every role's last fifth, which nobody trained on. The data
are read from SECAGG_DATA; `--work` keeps the first model and the federation's rounds.
"""

from __future__ import annotations

import math
import time
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.fl import arms

ROLES, BOOKS = "shakespeare", "dickens"
BATCH, FIRST_BATCH, FIRST_RATE, LARGEST_GRADIENT = 8, 32, 0.004, 5.0
RATES = {"federated": 0.5, "central": 0.1}
"""Of SGD, for each arm the better of those tried: a mean over clients allows larger steps than one model's own."""
BEGUN, WRITTEN, TEMPERATURE = "O, ", 240, 0.6
"""How a sample of text begins, how many characters follow, and how sharply they are drawn."""


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("text")(text)


def text(
    rounds: Annotated[int, typer.Option(min=1, help="rounds of tuning")] = 20,
    epochs: Annotated[int, typer.Option(min=1, help="passes over Dickens")] = 10,
    fraction: Annotated[float, typer.Option(help="share of the roles that are asked per round")] = 0.1,
    hidden: Annotated[int, typer.Option(min=1, help="units of the model")] = 128,
    seed: Annotated[int, typer.Option(help="initialisation, batches, who is asked")] = 0,
    work: Annotated[Path | None, typer.Option(help="folder of the runs, to go on from")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """Bits per character of Shakespeare: by the model of Dickens, tuned over roles under masks, tuned centrally."""
    torch.set_num_threads(1)
    tuning = Tuning(rounds, epochs, fraction, hidden, seed, work)
    arguments: dict[str, Any] = {"rounds": rounds, "epochs": epochs, "fraction": fraction, "hidden": hidden}
    arguments |= {"batch": BATCH, "learning_rates": RATES, "layers": "secagg+"}
    made = {"dickens alone": tuning.untuned, "over roles": tuning.federated, "central": tuning.central}
    arms.play("text", arguments, made, seed, as_json=as_json, save=save)


def train(model: Any, loader: Any, optimizer: Any) -> None:
    """One pass: the loop of every arm."""
    for inputs, labels in loader:
        step(model, inputs, labels, optimizer)


def step(model: Any, inputs: Any, labels: Any, optimizer: Any) -> None:
    """One step on a batch, its gradient cut to a norm, as is usual for recurrent models."""
    optimizer.zero_grad()
    loss: Any = torch.nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
    optimizer.step()


class Tuning:
    """The arms: what each makes of the model that was trained on Dickens."""

    def __init__(
        self, rounds: int, epochs: int, fraction: float, hidden: int, seed: int, work: Path | None
    ) -> None:
        self.rounds, self.epochs, self.fraction, self.hidden = rounds, epochs, fraction, hidden
        self.seed, self.work = seed, work

    @cached_property
    def roles(self) -> Any:
        """Shakespeare, whose clients are the speaking roles."""
        from fl.data import load

        return load(ROLES)

    def model(self) -> Any:
        """Return a new copy of the model of Dickens."""
        made = self._new()
        made.load_state_dict(self.first)
        return made

    def _new(self) -> Any:
        from fl.models import gru

        return gru(self.roles.input_shape, self.roles.classes, self.hidden)

    @cached_property
    def first(self) -> dict[str, torch.Tensor]:
        """The weights after training on Dickens; read from the folder of the runs where they lie there."""
        kept = (
            None if self.work is None else self.work / f"dickens-{self.epochs}-{self.hidden}-{self.seed}.pt"
        )
        if kept is not None and kept.exists():
            found: dict[str, torch.Tensor] = torch.load(kept, weights_only=True)
            return found
        found = self._trained_on_dickens()
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(found, kept)
        return found

    def _trained_on_dickens(self) -> dict[str, torch.Tensor]:
        from fl.data import load

        torch.manual_seed(self.seed)
        books, made = load(BOOKS), self._new()
        loader = arms.loader(books.x_train, books.y_train, FIRST_BATCH, shuffle=True)
        optimizer = torch.optim.Adam(made.parameters(), FIRST_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        for _ in range(self.epochs):
            train(made, loader, optimizer)
            schedule.step()
        return {name: tensor.clone() for name, tensor in made.state_dict().items()}

    @cached_property
    def _federation(self) -> tuple[Any, int, float]:
        """The model that was tuned over the roles, the steps that all of them took, and bytes up per client."""
        from fl import Federation
        from fl.data.partition import partition
        from secagg import SecAggPlus

        parts = partition(self.roles, "natural", None, self.seed)
        folder = None if self.work is None else self.work / f"roles-{self.seed}"
        federation = Federation(
            self.model,
            {who: self._loader(rows) for who, rows in parts.items()},
            train,
            privacy=[SecAggPlus()],
            learning_rate=RATES["federated"],
            fraction=self.fraction,
            seed=self.seed,
            metrics=(),
            output=folder,
        )
        resume = folder is not None and (folder / "checkpoint.npz").exists()
        result = federation.fit(self.rounds, resume=resume)
        if lost := [played.abandoned for played in result.history if played.abandoned]:
            raise RuntimeError(f"a round was abandoned: {lost[0]}")
        asked = [who for played in result.history for who in played.asked]
        sent = sum(played.bytes_up_per_client for played in result.history)
        return result.model, sum(math.ceil(len(parts[who]) / BATCH) for who in asked), sent

    def _loader(self, rows: Any) -> Any:
        return arms.loader(self.roles.x_train[rows], self.roles.y_train[rows], BATCH, shuffle=True)

    def untuned(self) -> dict[str, Any]:
        """The model of Dickens, as it is."""
        return self._row(self.model(), 0, 0.0, 0.0)

    def federated(self) -> dict[str, Any]:
        """Tuned over the roles, under masks."""
        began = time.process_time()
        model, steps, sent = self._federation
        return self._row(model, steps, sent, time.process_time() - began)

    def central(self) -> dict[str, Any]:
        """Tuned by as many steps as all roles took, one after the other, over the windows of all roles."""
        steps, began = self._federation[1], time.process_time()
        torch.manual_seed(self.seed)
        model, left = self.model(), steps
        optimizer = torch.optim.SGD(model.parameters(), RATES["central"])
        while left:
            for inputs, labels in islice(self._loader(range(len(self.roles.y_train))), left):
                step(model, inputs, labels, optimizer)
                left -= 1
        return self._row(model, steps, 0.0, time.process_time() - began)

    def _row(self, model: Any, steps: int, sent: float, took: float) -> dict[str, Any]:
        from fl.data.text import letters, numbers
        from fl.training import evaluate

        data = self.roles
        test = arms.loader(data.x_test, data.y_test, 256, shuffle=False)
        loss = evaluate(model, test, torch.nn.CrossEntropyLoss())["loss"]
        wrote = letters(model.write(numbers(BEGUN).tolist(), WRITTEN, TEMPERATURE, self.seed))
        return {
            "steps": steps,
            "rounds": self.rounds if sent else 0,
            "bits": loss / math.log(2),
            "bytes_up": sent,
            "sample": " / ".join(line for line in (BEGUN + wrote).splitlines() if line),
            "processor_s": took,
        }
