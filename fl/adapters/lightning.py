"""LightningModule and Trainer of Lightning as a Federation: one epoch of `fit` per client and local epoch.

What belongs here: a client's own Trainer, and its module's optimizer and schedules in the place where the run is. What
does not: which parameters travel; those that require gradients do, as in any federation.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import lightning as L  # noqa: N812  # as its documentation says
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    Checkpoint,
    EarlyStopping,
    LambdaCallback,
    ModelPruning,
    ModelSummary,
    ProgressBar,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from fl import arguments
from fl.adapters.optimizers import Factory, again, following
from fl.adapters.wrapping import Clients, each, federated, local_epochs, owns_rates, refuse_watching, unlike
from fl.federation import Federation
from fl.schedules import advance, followed
from protocols.errors import Misuse

PRIVATE: dict[str, Any] = {"accumulate_grad_batches": 1, "gradient_clip_val": None, "precision": "32-true"}
PRIVATE |= {"max_steps": -1, "limit_train_batches": 1.0, "overfit_batches": 0.0}
"""What a Trainer must say beside a layer that draws the batches and owns the optimizer."""
FROM = "of the package lightning (import lightning as L)"
HUSHED = r".*(optimizer\.step\(\)|many workers|no `val_dataloader`|logging interval)"
UNUSED = (Checkpoint, ModelSummary, ProgressBar)
"""What a client's Trainer does without: a federation has many of them, one after the other."""
WATCHING = (EarlyStopping, BaseFinetuning, StochasticWeightAveraging, ModelPruning)
"""What would do nothing, or something else, in a Trainer that ends after an epoch."""


def one_epoch(trainer: Any, module: Any) -> None:
    """Ends `fit` after an epoch, wherever in the run it is."""
    trainer.should_stop = True


class Batches:
    """Batches that a layer draws: nothing else can be read. They end where they end; what has no length would be drawn
    a batch ahead, before the step of the one before it.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return 1 << 31

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)


class LightningLoop:
    """One local epoch of `trainer().fit(model, loader)`. trainer: makes a Trainer. epochs: local ones of a round."""

    def __init__(self, module: Any, trainer: Callable[[], Any], epochs: int) -> None:
        self.func, self.module, self.trainer, self.epochs = type(module), module, trainer, epochs

    def __call__(
        self, model: Any, loader: Any, optimizer: Any, epoch: int, round: int, rounds: int
    ) -> dict[str, float] | None:
        own, calls = _trainer(self.trainer), (round - 1) * self.epochs + epoch
        own.fit_loop.max_epochs, own.fit_loop.min_epochs = rounds * self.epochs, 0
        at = own.fit_loop.epoch_progress.current
        at.ready = at.started = at.processed = at.completed = calls
        own.callbacks.append(LambdaCallback(on_train_epoch_end=one_epoch))
        drawn = not isinstance(loader, DataLoader) or hasattr(loader, "sealed")

        def configured() -> Any:
            return _here(type(model).configure_optimizers(model), optimizer, own, calls)

        model.configure_optimizers = configured
        with quiet():
            own.fit(model, Batches(loader) if drawn else loader)
        return {name: float(value) for name, value in own.callback_metrics.items()}

    def private(self, owner: str) -> None:
        """Raises Misuse for what a layer that draws batches and owns the optimizer leaves without effect."""
        owns = "draws the batches of this Trainer and owns its optimizer"
        unlike(_trainer(self.trainer), PRIVATE, owner, owns, "clip, and physical_batch for accumulation")
        if not self.module.automatic_optimization:
            raise Misuse(f"{owner} needs automatic_optimization: a step of one's own is not accounted")
        if _parsed(_configured(deepcopy(self.module), self.trainer))[1]:
            raise owns_rates(owner, "leave the schedulers out of configure_optimizers")


def from_lightning(
    module: Any, trainer: Callable[[], Any], clients: Clients, *, test: Any = None, **options: Any
) -> Federation:
    """Return a federation around a LightningModule; `result.model` is the trained one.

    - module: where the run begins. Every client trains a copy, with the optimizer and the schedules of its
      `configure_optimizers`: an optimizer's moments begin anew every round, schedules and `current_epoch` run over
      the whole run.
    - trainer: a function of no argument that returns a new Trainer; its `max_epochs` are the local epochs of a
      round.
    - clients: DataLoaders by name, as `Federation` takes them.
    - test: a loader for the module's `validation_step`, else its `test_step`; what it logs is the evaluation
      (default: None).
    - options: of `Federation`. metrics=(...) names what `training_step` logs; optimizer=... makes the optimizer
      where `configure_optimizers` cannot without data.

    SampleDP, and DistributedDP at example level, work through the same `fit`.

    Raises Misuse before round 1 for arguments of the Trainer that such a layer leaves without effect, and what
    `Federation` raises.

        federation = from_lightning(Net(), lambda: L.Trainer(max_epochs=1), loaders, privacy=[SecAgg()])
        module = federation.fit(rounds=10).model
    """
    arguments.instance("module", module, L.LightningModule, f"a LightningModule {FROM}")
    if isinstance(trainer, L.Trainer) or not callable(trainer):
        raise Misuse(
            "trainer: expected a function that makes a Trainer, such as lambda: L.Trainer(max_epochs=1)"
        )
    first: Any = _trainer(trainer)
    if _trainer(trainer) is first:
        raise Misuse("trainer: expected a new Trainer at every call, and it returns the same one again")
    refuse_watching(first.callbacks, WATCHING)
    if test is not None and not (_overrides(module, "validation_step") or _overrides(module, "test_step")):
        raise Misuse(
            f"test: {type(module).__name__} has no validation_step and no test_step that would evaluate it"
        )
    epochs = local_epochs("max_epochs", first.max_epochs, options)
    if options.get("optimizer") is None:
        options["optimizer"] = _optimizer(module, trainer)
    return federated(
        lambda: deepcopy(module),
        each(clients, _loader),
        LightningLoop(module, trainer, epochs),
        None if test is None else _loader("test", test),
        _evaluation(trainer),
        options,
        local_epochs=epochs,
    )


def _loader(whose: str, data: Any) -> Any:
    """A client's loader. Raises Misuse for what makes one."""
    if isinstance(data, L.LightningDataModule):
        raise Misuse(
            f"{whose}: expected a DataLoader, got the LightningDataModule {type(data).__name__}: give what its "
            "train_dataloader() returns, for test= its test_dataloader()"
        )
    return data


def _trainer(make: Callable[[], Any]) -> Any:
    """A client's Trainer: it neither saves nor evaluates; the federation does. Raises Misuse for another thing."""
    with quiet():
        own = make()
    arguments.instance("trainer", own, L.Trainer, f"a function that makes a Trainer {FROM}")
    own.callbacks[:] = [each for each in own.callbacks if not isinstance(each, UNUSED)]
    own.loggers = [DummyLogger() if _unnamed(each) else each for each in own.loggers]
    own.limit_val_batches = own.num_sanity_val_steps = 0
    return own


def _unnamed(logger: Any) -> bool:
    """Whether a logger is the one that a Trainer makes unasked: a folder of its own for every client and round."""
    return isinstance(logger, CSVLogger | TensorBoardLogger) and logger.name == "lightning_logs"


def _configured(module: Any, trainer: Callable[[], Any]) -> Any:
    """What a module, a copy, configures before it has seen data. Raises Misuse where it needs more."""
    module.trainer = _trainer(trainer)
    try:
        return module.configure_optimizers()
    except Exception as error:
        raise Misuse(
            f"configure_optimizers needs a Trainer with data ({error}): give from_lightning(..., optimizer=lambda "
            "parameters: ...); its schedules still come from configure_optimizers"
        ) from error


def _optimizer(module: Any, trainer: Callable[[], Any]) -> Factory:
    copied = deepcopy(module)
    made, _ = _parsed(_configured(copied, trainer))
    if made is None:
        raise Misuse(
            f"configure_optimizers: {type(module).__name__}'s gives no optimizer: let it return one, or give "
            "from_lightning(..., optimizer=lambda parameters: ...)"
        )
    return again(made, copied.parameters())


def _parsed(configured: Any) -> tuple[Any, list[Any]]:
    """The one optimizer that `configure_optimizers` returned, or None, and its schedulers, each in a dict. Raises
    Misuse for several optimizers, and for a schedule that follows a metric.
    """
    schedulers: Any = []
    if isinstance(configured, tuple) and len(configured) == 2 and isinstance(configured[0], list):
        configured, schedulers = configured
    if isinstance(configured, list | tuple) and len(configured) == 1:
        (configured,) = configured
    if isinstance(configured, dict):
        schedulers, configured = [configured.get("lr_scheduler")], configured.get("optimizer")
    if not isinstance(configured, Optimizer | None):
        several = configured if isinstance(configured, list | tuple) else [configured]
        raise Misuse(
            "configure_optimizers: expected one optimizer, with schedulers or without, got "
            f"{', '.join(type(one).__name__ for one in several)}: a loop with several of them is a train function of "
            "one's own, Federation(train=...)"
        )
    told = [{"scheduler": one, **(one if isinstance(one, dict) else {})} for one in schedulers if one]
    for one in told:
        followed(one["scheduler"])
    return configured, told


def _here(configured: Any, optimizer: Any, own: Any, calls: int) -> Any:
    """What `configure_optimizers` returned, around another optimizer, with its schedules after `calls` epochs."""
    made, schedulers = _parsed(configured)
    if not schedulers:
        return optimizer
    groups = len(made.param_groups), len(optimizer.param_groups)
    if groups[0] != groups[1]:
        raise Misuse(
            f"optimizer: configure_optimizers has schedules for {groups[0]} groups of parameters, and optimizer=... "
            f"makes {groups[1]}: make as many"
        )
    for group, numbers in zip(optimizer.param_groups, made.param_groups, strict=True):
        group.update({name: value for name, value in numbers.items() if name != "params"})
    own.fit_loop.setup_data()
    steps = -(-own.num_training_batches // own.accumulate_grad_batches)
    for told in schedulers:
        taken = calls * (steps if told.get("interval") == "step" else 1) // told.get("frequency", 1)
        told["scheduler"] = following(told["scheduler"], made)(optimizer)
        advance(told["scheduler"], taken, f"epoch {calls} of the run")
    return [optimizer], schedulers


def _overrides(module: Any, hook: str) -> bool:
    return getattr(type(module), hook) is not getattr(L.LightningModule, hook)


def _evaluation(trainer: Callable[[], Any]) -> Callable[..., dict[str, float]]:
    def evaluate(model: Any, loader: Any, criterion: Any, device: Any) -> dict[str, float]:
        own = _trainer(trainer)
        own.limit_val_batches = 1.0
        run = own.validate if _overrides(model, "validation_step") else own.test
        with quiet():
            (measured,) = run(model, loader, verbose=False) or [{}]
        model.train()
        return {name: float(value) for name, value in measured.items()}

    return evaluate


@contextmanager
def quiet() -> Iterator[None]:
    """Without what every new Trainer says of the machine and of what it does without, and torch of moved schedulers."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=HUSHED)
            yield
    finally:
        log.setLevel(level)
