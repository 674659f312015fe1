"""The Trainer of Hugging Face, with PEFT or without, as a Federation: one `train()` per client and local epoch.

What belongs here: a client's copy of the user's Trainer, its optimizer and its schedule. What does not: which
parameters travel; those that require gradients do, as in any federation, so that of a PEFT model only the adapters go.
"""

from collections.abc import Callable
from copy import copy, deepcopy
from functools import partial
from typing import Any, cast

import torch
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, Trainer, TrainerControl
from transformers.trainer_callback import DefaultFlowCallback
from transformers.trainer_utils import SchedulerType

from fl import arguments, schedules
from fl.adapters.optimizers import again, following
from fl.adapters.wrapping import Clients, each, federated, local_epochs, owns_rates, refuse_watching, unlike
from fl.federation import Federation
from protocols.errors import Misuse

QUIET: dict[str, Any] = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
QUIET |= {"logging_strategy": "no", "push_to_hub": False, "eval_on_start": False}
"""What a client's copy of the arguments says: the federation evaluates and saves the model."""
PRIVATE: dict[str, Any] = {"gradient_accumulation_steps": 1, "max_steps": -1, "lr_scheduler_type": "constant"}
PRIVATE |= {"fp16": False, "bf16": False, "auto_find_batch_size": False, "neftune_noise_alpha": None}
"""What the arguments must say beside a layer that draws the batches and makes the steps."""
TIMES = {"epoch", "test_runtime", "test_samples_per_second", "test_steps_per_second"}
TIMES |= {"test_model_preparation_time", "test_jit_compilation_time"}
"""What `evaluate` adds to a metric that it was asked for."""
SHOWN = (DefaultFlowCallback, ProgressCallback, PrinterCallback)


class ClientLoader(DataLoader[Any]):
    """A client's data set, in the batches of the Trainer's arguments. A layer may put another loader in its place."""


class TrainerLoop:
    """One local epoch of a Trainer, on a client's model and data. trainer: the template, which is never trained."""

    def __init__(self, trainer: Any, epochs: int) -> None:
        self.func, self.trainer, self.epochs = type(trainer), trainer, epochs
        own = None if trainer._created_lr_scheduler else trainer.lr_scheduler
        self.follow = None if own is None else following(own, trainer.optimizer)

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
        own.lr_scheduler = self._schedule(own, optimizer, rounds * self.epochs * steps, calls * steps)
        own._created_lr_scheduler = False
        return {"loss": float(own.train().training_loss)}

    def private(self, owner: str) -> None:
        """Raises Misuse for what a layer that draws batches and makes steps leaves without effect."""
        advice = "schedule for a learning rate by step, physical_batch for accumulation"
        owns = "draws the batches and takes the steps of this Trainer"
        unlike(self.trainer.args, PRIVATE, owner, owns, advice)
        if self.follow is not None or type(self.trainer).create_scheduler is not Trainer.create_scheduler:
            raise owns_rates(owner, "leave the Trainer's own scheduler out")
        called = [
            type(each).__name__ for each in self.trainer.callback_handler.callbacks if type(each) not in SHOWN
        ]
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

    def _schedule(self, own: Any, optimizer: Any, total: int, done: int) -> Any:
        """The Trainer's schedule over `total` steps of the run, `done` of which were taken."""
        if self.follow is not None:
            scheduler = self.follow(optimizer)
        else:
            for group in optimizer.param_groups:
                group["lr"] = group.get("initial_lr", group["lr"])
            scheduler = schedules.followed(own.create_scheduler(total, optimizer))
        schedules.advance(scheduler, done, f"step {done} of the run")
        return scheduler


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
    # it collects garbage, which takes longer than a small epoch
    own.accelerator.free_memory = lambda *held: list(held)
    return own


def from_trainer(trainer: Any, clients: Clients, *, test: Any = None, **options: Any) -> Federation:
    """Return a federation around a Hugging Face Trainer; `result.model` is the trained model.

    - trainer: as it would be trained: its model is where the run begins, and its arguments, collator, loss,
      callbacks, optimizer and scheduler are every client's. `num_train_epochs` are the local epochs of a round, or
      `max_steps` its steps. A schedule of the learning rate runs once over the run; an optimizer's moments begin
      anew every round. Of a PEFT model only what trains is sent.
    - clients: data sets by name, or a function `data_for(client, config)`, with names=[...].
    - test: a data set for `evaluate` (default: None).
    - options: of `Federation`. metrics=("loss",) sums the training loss; optimizer=... takes the place of the
      arguments'.

    SampleDP, and DistributedDP at example level, draw the batches and take the steps through `training_step`.

    Raises Misuse before round 1 for arguments of the Trainer that such a layer leaves without effect, and what
    `Federation` raises.

        federation = from_trainer(trainer, {"a": one, "b": other, "c": third}, privacy=[SecAgg()])
        trainer.model = federation.fit(rounds=10).model
    """
    arguments.instance("trainer", trainer, Trainer, "a transformers.Trainer")
    args = trainer.args
    if args.lr_scheduler_type == SchedulerType.REDUCE_ON_PLATEAU:
        raise schedules.follows_metric(SchedulerType.REDUCE_ON_PLATEAU.value)
    refuse_watching(trainer.callback_handler.callbacks, (EarlyStoppingCallback,))
    epochs = local_epochs("num_train_epochs", 1 if args.max_steps > 0 else args.num_train_epochs, options)
    if options.get("optimizer") is None:
        made = trainer.optimizer or copy(trainer).create_optimizer()
        options["optimizer"] = again(made, cast(Any, trainer.model).parameters())
    loader = partial(_loader, trainer)
    return federated(
        lambda: deepcopy(trainer.model),
        each(clients, loader),
        TrainerLoop(trainer, epochs),
        None if test is None else loader("test", test),
        _evaluation(trainer),
        options,
        device=str(args.device),
        local_epochs=epochs,
    )


def _loader(trainer: Any, whose: str, data: Any) -> ClientLoader:
    """A client's data set in batches. Raises Misuse for what cannot be counted and picked from."""
    if isinstance(data, DataLoader) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise Misuse(
            f"{whose}: expected a data set with len() and an example at each index, got {type(data).__name__}: the "
            "Trainer makes its batches"
        )
    collate = trainer._get_collator_with_removed_columns(trainer.data_collator, description="training")
    return ClientLoader(data, trainer.args.train_batch_size, shuffle=bool(len(data)), collate_fn=collate)


def _steps(own: Any, loader: ClientLoader) -> int:
    """Optimizer steps of one call."""
    examples = len(loader.dataset)  # type: ignore[arg-type]  # has a length: the federation asked
    batches, rest = divmod(examples, int(own.args.train_batch_size))
    batches += bool(rest) and not own.args.dataloader_drop_last
    if own.args.max_steps > 0:
        return int(own.args.max_steps) if examples else 0
    return -(-batches // int(own.args.gradient_accumulation_steps))


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
        kept = {name.removeprefix("test_"): value for name, value in measured.items() if name not in TIMES}
        return {name: float(value) for name, value in kept.items() if isinstance(value, int | float)}

    return evaluate
