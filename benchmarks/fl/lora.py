"""`lora`: adapters against the whole model: bytes, time and accuracy, with masks and with client-level noise.

A small GPT-2 reads characters. It is trained on Dickens, in one place, as a public model; then 64 clients, each with a
stretch of Shakespeare of its own, go on with the Trainer of Hugging Face: with all parameters, or with LoRA adapters
alone. Accuracy is that of the next character on Shakespeare that nobody trained on. One thread; seconds are processor
time. The texts are read from the folder SECAGG_DATA; nothing is downloaded.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import time
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import harness

WINDOW, WIDTH, CLIENTS, WINDOWS = 48, 64, 64, 64
"""Characters of a text, width of the model, clients, texts of each."""
RATES = {"whole": 1e-3, "adapters": 3e-3}
EPSILON, DELTA, CLIP = 8.0, 1e-3, 0.3


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("lora")(lora)


def lora(
    rounds: Annotated[int, typer.Option(min=1, help="rounds of each run")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="steps on the public corpus")] = 1200,
    rank: Annotated[int, typer.Option(min=1, help="rank of the adapters")] = 4,
    seed: Annotated[int, typer.Option(help="initialisation, batches")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """Bytes, time and accuracy of LoRA adapters against the whole model, with masks and with ClientDP."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    warnings.simplefilter("ignore")
    public, private, vocabulary = _texts()
    base = _pretrained(public, vocabulary, steps)
    clients = {str(at): _windows(part)[:WINDOWS] for at, part in enumerate(private[:-20000].chunk(CLIENTS))}
    test = torch.stack([each["input_ids"] for each in _windows(private[-20000:])])
    rows = [
        _run(base, what, noisy, clients, test, rounds, rank, seed)
        for noisy in (False, True)
        for what in ("whole", "adapters")
    ]
    outcome = harness.result(
        "fl",
        "lora",
        arguments={"clients": CLIENTS, "rounds": rounds, "rank": rank, "clip": CLIP, "delta": DELTA},
        figures={"rows": rows},
        seed=seed,
    )
    harness.finish(outcome, as_json=as_json, save=save)


def _texts() -> tuple[torch.Tensor, torch.Tensor, int]:
    """The public and the private text as tokens, and how many tokens there are. Raises SystemExit without them."""
    root = Path(os.environ.get("SECAGG_DATA", "data"))
    names = (("dickens", "98-0.txt.gz"), ("tinyshakespeare", "input.txt.gz"))
    paths = [root.joinpath(*name) for name in names]
    if missing := [path.name for path in paths if not path.exists()]:
        raise SystemExit(
            f"lora reads dickens/98-0.txt.gz and tinyshakespeare/input.txt.gz: no {missing[0]} in SECAGG_DATA"
        )
    texts = [gzip.decompress(path.read_bytes()).decode("utf-8", "ignore") for path in paths]
    # 0: a letter that Shakespeare lacks
    known = {letter: at + 1 for at, letter in enumerate(sorted(set(texts[1])))}
    public, private = (torch.tensor([known.get(letter, 0) for letter in text]) for text in texts)
    return public, private, len(known) + 1


def _windows(text: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    whole = text[: len(text) // WINDOW * WINDOW].reshape(-1, WINDOW)
    return [{"input_ids": row, "labels": row} for row in whole]


def _pretrained(text: torch.Tensor, vocabulary: int, steps: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=WINDOW,
        n_embd=WIDTH,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model: Any = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        begins = torch.randint(0, len(text) - WINDOW, (32,))
        batch = torch.stack([text[at : at + WINDOW] for at in begins])
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        schedule.step()
    return model


def _run(
    base: Any, what: str, noisy: bool, clients: Any, test: torch.Tensor, rounds: int, rank: int, seed: int
) -> dict[str, Any]:
    """One federation's figures."""
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    from dp import ClientDP
    from fl.adapters import from_trainer
    from secagg import SecAggPlus

    model = deepcopy(base)
    if what == "adapters":
        model = get_peft_model(
            model,
            LoraConfig(
                task_type="CAUSAL_LM",
                r=rank,
                target_modules=["c_attn", "c_proj", "c_fc"],
                fan_in_fan_out=True,
            ),
        )
    args = TrainingArguments(
        tempfile.mkdtemp(),
        num_train_epochs=1,
        per_device_train_batch_size=16,
        learning_rate=RATES[what],
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    noise = [ClientDP(epsilon=EPSILON, delta=DELTA, clip=CLIP)] if noisy else []
    federation = from_trainer(Trainer(model, args), clients, privacy=[*noise, SecAggPlus()], seed=seed)
    before, began = _accuracy(model, test), time.process_time()
    result = federation.fit(rounds=rounds)
    took = time.process_time() - began
    if lost := [played.abandoned for played in result.history if played.abandoned]:
        raise RuntimeError(f"{what}: a round was abandoned: {lost[0]}")
    return {
        "what": what,
        "layers": "client-dp, secagg+" if noisy else "secagg+",
        "sent": federation.coordinator.schema.dimension,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes_up": result.history[-1].bytes_up_per_client,
        "bytes_down": result.history[-1].bytes_down_per_client,
        "round_s": took / rounds,
        "before": before,
        "after": _accuracy(result.model, test),
        "epsilon": result.epsilon,
    }


@torch.no_grad()
def _accuracy(model: Any, texts: torch.Tensor) -> float:
    """Share of the characters that are the likeliest next one."""
    model.eval()
    guessed = model(input_ids=texts).logits[:, :-1].argmax(2)
    model.train()
    return float((guessed == texts[:, 1:]).float().mean())
