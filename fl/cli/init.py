"""`secagg init`: writes a project of a few files that `secagg run` trains as it stands.

What belongs here: the files. What their keys mean is in `fl.run_config`.
"""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from fl.cli import output
from fl.registry import DATA
from protocols.errors import Misuse

LEAST = 3
"""Clients of a project: in a sum of two each reads the other's update."""
PROJECT = "secagg.toml"
"""The configuration that `secagg run` reads in a folder that has one, if it is given none."""

LOOP = '''"""The model and loop of this project. `secagg run` calls them by their names in secagg.toml: change both."""

import math

import torch


def model(input_shape, classes):
    """A new module; it is given the shape of one example and the number of classes."""
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), 32), torch.nn.ReLU(), torch.nn.Linear(32, classes)
    )


def train(model, loader, optimizer, criterion):
    """One local epoch of one client. Arguments are found by name; device, epoch and round exist too."""
    model.train()
    total = seen = 0
    for inputs, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        total, seen = total + loss.item() * len(labels), seen + len(labels)
    return {"loss": total / seen}
'''


def init(
    folder: Annotated[Path, Argument(help="Folder of the project; it is made.")] = Path(),
    data: Annotated[
        str, Option(help="A CSV file with a header, a known data set, or module:factory.")
    ] = "digits",
    target: Annotated[str | None, Option(help="Of a CSV file: the column to predict.")] = None,
    clients_by: Annotated[
        str | None, Option(help="Of a CSV file: the column whose values are the clients.")
    ] = None,
    model: Annotated[str | None, Option(help="Your own module:factory (default: one in loop.py).")] = None,
    as_json: output.JsonOption = False,
) -> None:
    """Writes a project: secagg.toml, and loop.py with a model and a training loop to change."""
    from protocols.store import write_atomic

    split: dict[str, Any] = {"partition": "dirichlet:alpha=0.5", "clients": 10}
    split = split if clients_by is None else {"partition": "natural"}
    key, found = _data(data, target, clients_by, split)
    files = {PROJECT: _toml(key, split, model), "loop.py": LOOP}
    if model is not None:
        del files["loop.py"]
    if taken := [name for name in files if (folder / name).exists()]:
        raise Misuse(f"{folder / taken[0]} is there already: name another folder, nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomic(folder / name, text.encode(), 0o644)
    inside = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    output.tell(
        {"folder": str(folder), "files": sorted(files)},
        as_json,
        f"{found}{', '.join(files)} in {folder}. Train: {inside}secagg run",
    )


def _data(
    data: str, target: str | None, clients_by: str | None, split: dict[str, Any]
) -> tuple[dict[str, Any] | str, str]:
    """Return the key `data`, and what a table was found to hold. Raises Misuse for what could not be trained on: a file
    that is not there, or not told what to predict, too few rows or clients, a name that is none.
    """
    if not data.lower().endswith((".csv", ".tsv")):
        if target is not None or clients_by is not None:
            raise Misuse(f"--target and --clients-by are for a CSV file (.csv, .tsv); {data} is none")
        if ":" not in data:
            DATA.factory(data)
        return data, ""
    from fl.data.csv_file import csv_file
    from fl.data.partition import partition

    if target is None:
        raise Misuse(f"--target: name the column of {data} that is to be predicted")
    made = csv_file(data, target, clients_by)  # what is wrong with it is said now
    clients = partition(made, split["partition"], split.get("clients"), 0)
    if len(clients) < LEAST:
        raise Misuse(
            f"--clients-by: {clients_by!r} has {len(clients)} values: a sum of fewer than {LEAST} clients hides nobody"
        )
    rows, features = len(made.y_train) + len(made.y_test), made.x_train.shape[1]
    found = f"{data}: {rows} rows, {features} features, {made.classes} classes, {len(clients)} clients.\n"
    table = {"name": "csv", "file": str(Path(data).resolve()), "target": target}
    return (table if clients_by is None else {**table, "clients_by": clients_by}), found


def _toml(data: dict[str, Any] | str, split: dict[str, Any], model: str | None) -> str:
    import tomli_w

    first: dict[str, Any] = {"data": data} if isinstance(data, str) else {}
    own = {"model": "loop:model", "train": "loop:train"} if model is None else {"model": model}
    keys = {
        **first, **split, **own, "rounds": 10, "local_epochs": 1, "learning_rate": 0.1, "batch_size": 16,
        "privacy": [{"name": "secagg+", "dropout": 0.2}],
    }  # fmt: skip
    told = "# Keys are the options of `secagg run`; an option on its command line goes before a key here.\n"
    rest = {} if isinstance(data, str) else {"data": data}
    return told + tomli_w.dumps({**keys, **rest})
