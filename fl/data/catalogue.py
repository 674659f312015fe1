"""What is known about each built-in data set without reading it: files, licence, whether it is at hand.

Belongs here: the table behind `secagg data list` and `secagg doctor`. Reading a set belongs to its own
module.
"""

from dataclasses import dataclass
from pathlib import Path

from fl.data import femnist
from fl.data.sources import Source, find, published
from protocols.extras import missing

SOURCES: dict[str, Source | None] = {"digits": None, "breast-cancer": None, **published()}
"""Data set -> its files, or None where scikit-learn brings it."""


@dataclass(frozen=True)
class DataSetStatus:
    """A line of the list. `found` names the place, or is None where the set is not at hand; `obtainable` says
    whether a download exists (or nothing is to be fetched).
    """

    name: str
    found: str | None
    obtainable: bool
    licence: str


def entries(data_dir: Path | None) -> list[DataSetStatus]:
    """Every built-in set, with the place where it was found. Nothing is read or downloaded."""
    return [_entry(name, source, data_dir) for name, source in SOURCES.items()]


def _entry(name: str, source: Source | None, data_dir: Path | None) -> DataSetStatus:
    if source is None:
        absent = "sklearn" in missing("torch")
        return DataSetStatus(name, None if absent else "scikit-learn", True, "CC BY 4.0")
    if name == "femnist":  # in two editions, one of which is downloaded
        return DataSetStatus(name, femnist.at_hand(data_dir), True, femnist.LICENCE)
    found = find(source, data_dir)
    downloads = all(file.url is not None for file in source.files)
    return DataSetStatus(name, found[1] if found else None, downloads, source.licence)
