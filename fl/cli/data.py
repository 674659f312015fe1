"""`secagg data list` and `secagg data get NAME`: which data sets there are, where they were found,
fetching one.

Belongs here: the two commands and what they print. Finding and fetching is in `fl.data`.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from fl.cli import output

DataDir = Annotated[
    Path | None,
    Option(
        "--data-dir", help="Folder that is searched, and no other; a download goes there.", show_default=False
    ),
]


data = typer.Typer(
    help="Lists the data sets and where they were found, or fetches one.", add_completion=False
)


@data.command("list")
def list_sets(data_dir: DataDir = None, as_json: output.JsonOption = False) -> None:
    """Lists the data sets: where each was found, or that it can be downloaded."""
    from fl.data.catalogue import entries
    from fl.registry import DATA

    known = entries(data_dir)
    others = [name for name in DATA.names() if name not in DATA.builtin]
    if as_json:
        output.emit_json({"data": [asdict(entry) for entry in known], "from_plugins": others})
        return
    from rich.table import Column, Table

    table = Table("data set", Column("found", overflow="fold"), "licence", box=None)
    for entry in known:
        absent = "missing; `secagg data get` downloads it" if entry.obtainable else "missing"
        table.add_row(entry.name, entry.found or absent, entry.licence)
    for name in others:
        table.add_row(name, "an installed plugin brings it", "")
    output.stdout_console().print(table)


@data.command("get")
def get_set(
    name: Annotated[str, Argument(help="A name of `secagg data list`.", show_default=False)],
    data_dir: DataDir = None,
    as_json: output.JsonOption = False,
) -> None:
    """Finds or downloads a data set, verifies its checksums, reads it, and says what is in it."""
    from fl.data import load

    found = load(name, data_dir)
    facts = {
        "name": found.name,
        "source": found.source,
        "train": len(found.y_train),
        "test": len(found.y_test),
        "input_shape": found.input_shape,
        "classes": found.classes,
        "natural_clients": len(found.client_names) or None,
        "preprocessing": found.preprocessing,
    }
    natural = f", {len(found.client_names)} natural clients" if found.client_names else ""
    output.tell(
        facts,
        as_json,
        f"{found.name}: {len(found.y_train)} training and {len(found.y_test)} test examples of shape "
        f"{found.input_shape}, {found.classes} classes{natural}; {found.preprocessing}. From {found.source}.",
    )
