"""Trainer of Hugging Face, with LoRA and without: adapters alone travel, the user's arguments hold, layers exchange."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.diffs import Pair
from dp import ClientDP, SampleDP
from fl import FedAvg, FedProx
from fl.adapters import from_trainer
from he import CKKSSum
from protocols.errors import Misuse
from secagg import SecAgg, SecAggPlus

SIZE = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


class Texts(torch.utils.data.Dataset[Any]):
    """Texts of four words, of two kinds. positions: say them with every example, so that each has rows of its own."""

    def __init__(self, size: int = 8, first: int = 0, positions: bool = False) -> None:
        self.positions = positions
        self.words = (torch.arange(4 * size) * 7 + first).reshape(size, 4) % 11

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        named = {"input_ids": self.words[at], "labels": self.words[at, 0] % 2}
        return named | {"position_ids": torch.arange(4)} if self.positions else named


class Rates(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_step_begin(self, *args: Any, optimizer: Any, **kwargs: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


CLIENTS = {name: Texts(first=at) for at, name in enumerate("abcd")}


def trainer(folder: Path, rank: int = 2, callbacks: Any = None, **args: Any) -> Trainer:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=11,
        max_position_embeddings=4,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
        **SIZE,
    )
    model = BertForSequenceClassification(config)
    if rank:
        model = get_peft_model(
            model, LoraConfig(task_type="SEQ_CLS", r=rank, target_modules=["query", "value"])
        )
    usual = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "use_cpu": True, "report_to": "none"}
    named = TrainingArguments(str(folder), **{**usual, "disable_tqdm": True, **args})
    return Trainer(model, named, callbacks=callbacks, eval_dataset=Texts())


def test_only_what_trains_travels_and_bytes_follow_the_named_parameters(tmp_path: Path) -> None:
    sent = {}
    for rank in (2, 4):
        made = trainer(tmp_path, rank, learning_rate=1e-2)
        before = {name: value.clone() for name, value in made.model.state_dict().items()}
        trains = {name: p for name, p in made.model.named_parameters() if p.requires_grad}
        federation = from_trainer(made, CLIENTS, privacy=[SecAggPlus()])
        protected = {leaf.name for leaf in federation.coordinator.schema.leaves if leaf.rule == "protect"}
        assert protected == trains.keys()
        assert all("lora" in name or "modules_to_save" in name for name in protected)
        result = federation.fit(rounds=1)
        for name, value in result.model.state_dict().items():
            assert torch.equal(value, before[name]) is (name not in trains), name
        assert torch.equal(made.model.state_dict()[name], before[name])
        session = federation.engine.session
        sent[rank] = (sum(p.numel() for p in trains.values()), result.history[0].bytes_up_per_client, session)
    (small, fewer, session), (large, more, _) = sent[2], sent[4]
    # nothing else grows
    assert more - fewer == pytest.approx((large - small) * session.ring_bits() / 8, abs=8)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_round_of_one_client_is_the_trainers_own_training_with_one_schedule_over_the_run(
    tmp_path: Path, accumulate: int
) -> None:
    options = {"learning_rate": 1e-2, "gradient_accumulation_steps": accumulate, "warmup_steps": 1}
    options |= {"weight_decay": 0.1}
    alone = trainer(tmp_path, num_train_epochs=2, **options)
    alone.train_dataset = Texts(4 * accumulate)  # one step an epoch, whatever the order
    rates = [Rates(), Rates()]
    alone.add_callback(rates[0])
    alone.train()
    made = trainer(tmp_path, callbacks=[rates[1]], **options)
    federation = from_trainer(made, {"a": alone.train_dataset}, strategy=FedAvg(), bits=28, metrics=("loss",))
    result = federation.fit(rounds=1)
    first = from_trainer(
        trainer(tmp_path, num_train_epochs=2, **options), {"a": alone.train_dataset}, bits=28
    )
    together = first.fit(rounds=1).model.state_dict()
    for name, value in alone.model.state_dict().items():
        assert together[name] == pytest.approx(value, abs=1e-5), name
    assert result.history[0].train_metrics["loss"] > 0
    rates[1].seen.clear()
    from_trainer(made, {"a": alone.train_dataset}).fit(rounds=2)
    assert rates[1].seen == pytest.approx(rates[0].seen)


@pytest.mark.parametrize(
    "layers", [[CKKSSum()], [ClientDP(noise_multiplier=1e-3, clip=1.0, delta=1e-5), SecAgg()]]
)
def test_layers_are_exchanged_and_strategies_may_own_the_optimizer(tmp_path: Path, layers: list[Any]) -> None:
    made = trainer(tmp_path, learning_rate=1e-2)
    federation = from_trainer(made, CLIENTS, privacy=layers, strategy=FedProx(mu=0.1), test=CLIENTS["a"])
    result = federation.fit(rounds=1)
    assert result.survivors == [("a", "b", "c", "d")]
    assert result.history[0].metrics["loss"] > 0
    name = next(name for name, p in made.model.named_parameters() if p.requires_grad)
    assert torch.equal(made.model.state_dict()[name], trainer(tmp_path).model.state_dict()[name])


@pytest.mark.parametrize("rank", [0, 2])
def test_sample_dp_works_through_the_trainers_own_step(tmp_path: Path, rank: int) -> None:
    made = trainer(tmp_path, rank, lr_scheduler_type="constant", learning_rate=1e-2, num_train_epochs=2)
    if not rank:  # the model's own positions are of no example
        with pytest.raises(Misuse, match=r"position_embeddings.*no row per example.*Nothing was trained"):
            from_trainer(made, CLIENTS, privacy=[SampleDP(noise_multiplier=1.0, delta=1e-5)]).fit(rounds=1)
    clients = {name: Texts(first=at, positions=not rank) for at, name in enumerate("ab")}
    federation = from_trainer(made, clients, privacy=[SampleDP(noise_multiplier=1.0, delta=1e-5)])
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    result = federation.fit(rounds=1)
    moved = {
        name for name, value in result.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert "sample-dp" in result.statement.describe()


@pytest.mark.parametrize(
    ("args", "callbacks", "says"),
    [
        ({}, None, r"SampleDP draws the batches.*lr_scheduler_type='constant' \(it is 'linear'\)"),
        (
            {"lr_scheduler_type": "constant", "gradient_accumulation_steps": 2},
            None,
            "gradient_accumulation_steps=1",
        ),
        ({"lr_scheduler_type": "constant"}, [Rates()], r"callbacks \['Rates'\] would never be called"),
    ],
)
def test_what_sample_dp_leaves_without_effect_is_named_before_round_one(
    tmp_path: Path, args: dict[str, Any], callbacks: Any, says: str
) -> None:
    made = trainer(tmp_path, callbacks=callbacks, **args)
    plain = from_trainer(made, CLIENTS)
    with pytest.raises(Misuse, match=says):
        plain.with_privacy([SampleDP(noise_multiplier=1.0, delta=1e-5)])


@pytest.mark.parametrize("made_by", ["given", "overridden"])
def test_a_scheduler_of_ones_own_runs_over_the_whole_run(tmp_path: Path, made_by: str) -> None:
    def with_schedule(callbacks: Any = None) -> Trainer:
        kind = Decaying if made_by == "overridden" else Trainer
        model = trainer(tmp_path, rank=0).model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        warm = torch.optim.lr_scheduler.LinearLR
        given = warm(optimizer, 0.1, total_iters=3) if made_by == "given" else None
        args = trainer(tmp_path, max_steps=-1).args
        return kind(
            model, args, train_dataset=CLIENTS["a"], optimizers=(optimizer, given), callbacks=callbacks
        )

    rates = [Rates(), Rates()]
    alone = with_schedule([rates[0]])
    alone.args.num_train_epochs = 2
    alone.train()
    from_trainer(with_schedule([rates[1]]), {"a": CLIENTS["a"]}).fit(rounds=2)
    assert len(set(rates[0].seen)) == 4
    assert rates[1].seen == pytest.approx(rates[0].seen)
    made = with_schedule()
    made.args = trainer(tmp_path, lr_scheduler_type="constant").args
    with pytest.raises(Misuse, match="SampleDP owns the learning rates: leave the Trainer's own scheduler"):
        from_trainer(made, CLIENTS, privacy=[SampleDP(noise_multiplier=1.0, delta=1e-5)])


class Decaying(Trainer):
    """Makes its scheduler itself."""

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        self.lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizer or self.optimizer, 1, 0.5)
        return self.lr_scheduler


def test_a_trainer_that_has_trained_goes_on_with_the_schedule_of_its_arguments(tmp_path: Path) -> None:
    seen = []
    for trains in (False, True):
        rates = Rates()
        made = trainer(tmp_path, learning_rate=1e-2, callbacks=[rates])
        if trains:
            made.train_dataset = CLIENTS["a"]
            made.train()
        rates.seen.clear()
        from_trainer(made, {"a": CLIENTS["a"]}).fit(rounds=2)
        seen.append(rates.seen)
    assert seen[0] == pytest.approx(seen[1])
    assert len(seen[0]) == 4


class Streamed(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(list(CLIENTS["a"]))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_train_epochs": 0.5}, r"whole passes, 1 or more, got 0\.5"),
        ({"local_epochs": 2}, "num_train_epochs says it"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"},
            "reduce_lr_on_plateau follows a metric",
        ),
        (
            {"callbacks": [EarlyStoppingCallback(2)]},
            r"EarlyStoppingCallback watches.*leave it out.*fl\.callbacks\.EarlyStopping",
        ),
        ({"trainer": Trainer}, r"got the class Trainer: write Trainer\(\.\.\.\)"),
        (
            {"clients": {"a": CLIENTS["a"], "b": DataLoader(CLIENTS["b"], 4)}},
            "client 'b': expected a data set.*got DataLoader",
        ),
        ({"clients": [CLIENTS["a"], Streamed()]}, "client '1': expected a data set.*got Streamed"),
        ({"test": DataLoader(CLIENTS["b"], 4)}, "test: expected a data set"),
        ({"clients": lambda name: CLIENTS["a"], "names": 2}, r"data_for\(client_id, config\)"),
    ],
)
def test_what_cannot_be_federated_is_a_sentence(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    named = {"clients", "test", "names", "local_epochs", "trainer"}
    options = {"clients": CLIENTS} | {name: value for name, value in given.items() if name in named}
    made = trainer(tmp_path, **{name: value for name, value in given.items() if name not in named})
    with pytest.raises(Misuse, match=says):
        from_trainer(**{"trainer": made, **options})


def test_a_test_measures_what_was_asked_for_and_nothing_else(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.compute_metrics = lambda pair: {"dwell_time": 2.0}
    result = from_trainer(made, CLIENTS, test=CLIENTS["a"]).fit(rounds=1)
    assert result.history[0].metrics.keys() == {"loss", "dwell_time"}


def test_the_example_runs_and_five_lines_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert Pair("examples/adapters/trainer").changed <= 5
    runpy.run_module("examples.adapters.trainer_after")
    assert "loss " in capsys.readouterr().out
