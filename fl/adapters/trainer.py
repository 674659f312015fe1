"""The Trainer of Hugging Face, with PEFT or without, as a Federation: one `train()` per client and local epoch.

What belongs here: a client's copy of the user's Trainer, its optimizer and its schedule. What does not: which
parameters travel; those that require gradients do, as in any federation, so that of a PEFT model only the adapters go.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerControl
from transformers.trainer_callback import DefaultFlowCallback

from fl.adapters.arrays import Clients
from fl.adapters.optimizers import again
from fl.federation import Federation
from protocols.errors import Misuse

QUIET: dict[str, Any] = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
QUIET |= {"logging_strategy": "no", "push_to_hub": False, "eval_on_start": False}
"""What a client's copy of the arguments says: the federation evaluates and saves the model."""
PRIVATE: dict[str, Any] = {"gradient_accumulation_steps": 1, "max_steps": -1, "lr_scheduler_type": "constant"}
PRIVATE |= {"fp16": False, "bf16": False, "auto_find_batch_size": False, "neftune_noise_alpha": None}
"""What the arguments must say beside a layer that draws the batches and makes the steps."""
SHOWN = (DefaultFlowCallback, ProgressCallback, PrinterCallback)


class ClientLoader(DataLoader[Any]):
    """A client's data set, in the batches of the Trainer's arguments. A layer may put another loader in its place."""


class TrainerLoop:
    """One local epoch of a Trainer, on a client's model and data. trainer: the template, which is never trained."""

    def __init__(self, trainer: Any, epochs: int) -> None:
        self.func, self.trainer, self.epochs = type(trainer), trainer, epochs

    def __call__(
        self, model: Any, loader: Any, optimizer: Any, epoch: int, round: int, rounds: int
    ) -> dict[str, float] | None:
        own = self._copy(model, optimizer)
        if not isinstance(loader, ClientLoader):
            return _private(own, model, loader, optimizer)
        own.train_dataset = loader.dataset
        steps = _steps(own, loader)
        if not steps:
            return None
        calls = (round - 1) * self.epochs + epoch
        own.lr_scheduler = _schedule(own, optimizer, rounds * self.epochs * steps, calls * steps)
        own._created_lr_scheduler = False
        return {"loss": float(own.train().training_loss)}

    def private(self, owner: str) -> None:
        """Raises Misuse for what a layer that draws batches and makes steps leaves without effect."""
        args = self.trainer.args
        found = {name: getattr(args, name) for name in PRIVATE}
        said = [
            f"{name}={PRIVATE[name]!r} (it is {getattr(value, 'value', value)!r})"
            for name, value in found.items()
            if getattr(value, "value", value) != PRIVATE[name]
        ]
        called = [
            type(each).__name__ for each in self.trainer.callback_handler.callbacks if type(each) not in SHOWN
        ]
        if said:
            raise Misuse(
                f"{owner} draws the batches and takes the steps of this Trainer: say {', '.join(said)} in its "
                f"arguments; {owner} has options of its own: schedule for a learning rate by step, physical_batch for "
                "accumulation"
            )
        if called:
            raise Misuse(
                f"{owner} takes the steps of this Trainer, so that its callbacks {called} would never be called: leave "
                "them out"
            )

    def _copy(self, model: Any, optimizer: Any) -> Any:
        own = _around(self.trainer, model)
        own.args = copy(self.trainer.args)
        for name, value in QUIET.items():
            setattr(own.args, name, value)
        own.args.num_train_epochs, own.args.seed = 1, torch.initial_seed() & 0x7FFFFFFF
        own.optimizer, own.lr_scheduler, own.control = optimizer, None, TrainerControl()
        own.current_gradient_accumulation_steps = 1
        return own


def _around(trainer: Any, model: Any) -> Any:
    """A copy of a Trainer around another model: what it was made with is shared, what it becomes is not."""
    own: Any = copy(trainer)
    own.model_init, own.model, own.model_wrapped = None, model, model
    own.callback_handler, own.accelerator = copy(trainer.callback_handler), copy(trainer.accelerator)
    own.callback_handler.callbacks = [
        each
        for each in own.callback_handler.callbacks
        if type(each) not in (ProgressCallback, PrinterCallback)
    ]
    for held in ("_models", "_optimizers", "_schedulers", "_dataloaders"):
        setattr(own.accelerator, held, [])
    own.accelerator.free_memory = lambda *held: list(
        held
    )  # it collects garbage, which takes longer than a small epoch
    return own


def from_trainer(trainer: Any, clients: Clients, *, test: Any = None, **options: Any) -> Federation:
    """Return a federation around a Trainer; `result.model` is the trained model.

    trainer: as it would be trained: its model is where the run begins, and its arguments, collator, loss, callbacks
    and optimizer are every client's. `num_train_epochs` are the local epochs of a round, or `max_steps` its steps; a
    schedule of the learning rate runs once over the whole run, and an optimizer's moments begin anew every round.
    clients: data sets by name, or `data_for(client_id, config)` with `names`. test: a data set for `evaluate`.
    metrics=("loss",) sums the training loss. options: of `Federation`; `optimizer=` takes the place of the arguments'.
    Of a PEFT model only what trains is sent.

    SampleDP, and DistributedDP at example level, draw the batches and take the steps through `training_step`; what
    else the arguments say is refused by name before round 1. Raises Misuse as `Federation` does.

        trainer.model = from_trainer(trainer, {"a": one, "b": other}, privacy=[SecAgg()]).fit(rounds=10).model
    """
    if not isinstance(trainer, Trainer):
        raise Misuse(f"trainer: expected a transformers.Trainer, got {type(trainer).__name__}")
    args = trainer.args
    epochs = 1 if args.max_steps > 0 else int(args.num_train_epochs)
    if (args.max_steps <= 0 and epochs != args.num_train_epochs) or epochs < 1:
        raise Misuse(f"num_train_epochs: a round has whole passes, 1 or more, got {args.num_train_epochs}")
    if "local_epochs" in options:
        raise Misuse("local_epochs: the Trainer's num_train_epochs says it")
    given: dict[str, Any] = {"metrics": (), "device": str(args.device), **options}
    if given.get("optimizer") is None:
        made = trainer.optimizer or copy(trainer).create_optimizer()
        given["optimizer"] = again(made, cast(Any, trainer.model).parameters())
    return Federation(
        lambda: deepcopy(trainer.model),
        _loaders(trainer, clients),
        TrainerLoop(trainer, epochs),
        test=None if test is None else _loaders(trainer, [test])[0],
        evaluate=None if test is None else _evaluation(trainer),
        local_epochs=epochs,
        **given,
    )


def _loaders(trainer: Any, clients: Any) -> Any:
    def loader(dataset: Any) -> ClientLoader:
        shuffle = bool(len(dataset)) and not isinstance(dataset, torch.utils.data.IterableDataset)
        collate = trainer._get_collator_with_removed_columns(trainer.data_collator, description="training")
        return ClientLoader(dataset, trainer.args.train_batch_size, shuffle=shuffle, collate_fn=collate)

    if isinstance(clients, Mapping):
        return {name: loader(dataset) for name, dataset in clients.items()}
    if callable(clients):
        return lambda client, config: loader(clients(client, config))
    return [loader(dataset) for dataset in clients] if isinstance(clients, Sequence) else clients


def _steps(own: Any, loader: ClientLoader) -> int:
    """Optimizer steps of one call."""
    examples = len(loader.dataset)  # type: ignore[arg-type]  # has a length: the federation asked
    batches, rest = divmod(examples, int(own.args.train_batch_size))
    batches += bool(rest) and not own.args.dataloader_drop_last
    if own.args.max_steps > 0:
        return int(own.args.max_steps) if examples else 0
    return -(-batches // int(own.args.gradient_accumulation_steps))


def _schedule(own: Any, optimizer: Any, total: int, done: int) -> Any:
    """The arguments' schedule over `total` steps of the run, `done` of which were taken."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])
    scheduler = own.create_scheduler(total, optimizer)
    if isinstance(scheduler, LambdaLR) and done:
        scheduler.last_epoch = done - 1
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # that no step was taken before: those before were another optimizer's
            scheduler.step()
    return scheduler


def _private(own: Any, model: Any, loader: Any, optimizer: Any) -> dict[str, float] | None:
    """One pass over batches that a layer draws, with an optimizer that it owns."""
    for batch in loader:
        optimizer.zero_grad()
        own.training_step(model, batch)
        optimizer.step()
    return None


def _evaluation(trainer: Any) -> Callable[..., dict[str, float]]:
    def evaluate(model: Any, loader: Any, criterion: Any, device: Any) -> dict[str, float]:
        measured = _around(trainer, model).evaluate(loader.dataset, metric_key_prefix="test")
        model.train()
        slow = ("_runtime", "_per_second", "_time")
        kept = {
            name.removeprefix("test_"): value for name, value in measured.items() if not name.endswith(slow)
        }
        return {name: float(value) for name, value in kept.items() if isinstance(value, int | float)}

    return evaluate
