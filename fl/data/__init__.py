"""Data sets and their split over clients, as NumPy arrays; `load` finds a set by its registered name.

Belongs here: where data comes from and who holds which example. Loaders of torch and training belong to
the federation.
"""

from pathlib import Path

from fl.data.dataset import DataSet
from protocols.errors import Misuse

__all__ = ["DataSet", "load"]


def load(name: str, data_dir: Path | str | None = None) -> DataSet:
    """The data set that `name` means: a registered name, with options (`adult:clients_by=race`), or a
    reference `package.module:factory` to a function that returns a `DataSet` (it may take `data_dir`).

    `data_dir`, where it is given, is the only folder searched. Raises DataMissing where the files are found
    nowhere, MissingExtra where scikit-learn is needed and missing, Misuse for an unknown name or a factory that returns
    something else.
    """
    from fl.registry import DATA

    built = DATA.build(name, data_dir=None if data_dir is None else Path(data_dir))
    if not isinstance(built, DataSet):
        raise Misuse(f"The data set {name!r} must be an fl.data.DataSet; it is a {type(built).__name__}.")
    return built
