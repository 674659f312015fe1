"""Tables: heart disease at four hospitals, the Adult census, and credit card defaults.

Belongs here: what the columns mean and how they become numbers. Where the files are is in `sources.py`.
Adult and credit-default are scaled by constants, not by statistics of the examples: preprocessing tells
nothing about anyone.
"""

import csv
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fl.data.dataset import DataSet, Floats, Labels, held_out, holdout, indicators, standardise
from fl.data.download import obtain
from fl.data.sources import published
from protocols.errors import Misuse

Table = npt.NDArray[np.str_]

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
_ADULT_GROUPS = ["workclass", "marital-status", "occupation", "relationship", "race", "sex", "native-country"]


def heart_disease(data_dir: Path | None = None) -> DataSet:
    """740 patients of four hospitals, who are the natural clients; 13 features, 2 classes. Raises
    DataMissing.

    As in FLamby's Fed-Heart-Disease (Ogier du Terrail et al., NeurIPS 2022): slope, vessels and thal are
    dropped, then rows with missing values; chest pain and resting ECG become indicators; 34 % of each
    hospital are its test part. Each hospital standardises with its own training rows, which it can do
    without telling anyone.
    """
    files, where = obtain(source := published()["heart-disease"], data_dir)
    parts = [_hospital(_rows(files[file.name])) for file in source.files]
    sizes = [[len(part[index]) for part in parts] for index in (1, 3)]
    owners = [np.repeat(np.arange(len(parts), dtype=np.int64), counts) for counts in sizes]
    x_train, y_train, x_test, y_test = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return DataSet(
        "heart-disease",
        x_train.astype(np.float32),
        y_train.astype(np.int64),
        x_test.astype(np.float32),
        y_test.astype(np.int64),
        2,
        where,
        "standardised at each hospital with its own training part",
        owners[0],
        owners[1],
        HOSPITALS,
    )


def adult(data_dir: Path | None = None, clients_by: str | None = None) -> DataSet:
    """32,561 + 16,281 census records, 2 classes (income above 50,000 dollars). Raises DataMissing.

    Numbers are scaled by constants, groups become indicators ("?" is a group); the sampling weight and
    the text of the education, which `education-num` repeats, are dropped. `clients_by` names the column
    whose values are the natural clients, such as occupation or race; Misuse names the possible ones.
    """
    if clients_by is not None and clients_by not in _ADULT_GROUPS:
        raise Misuse(f"adult: clients_by is one of {', '.join(_ADULT_GROUPS)}; not {clients_by!r}.")
    files, where = obtain(source := published()["adult"], data_dir)
    train, test = (_rows(files[file.name]) for file in source.files)
    both = np.concatenate((train, test))
    x, y = _adult_features(both, source.columns), np.char.startswith(both[:, -1], ">50K").astype(np.int64)
    cut = len(train)
    done = "scaled by constants, groups as indicators"
    parts = (x[:cut], y[:cut], x[cut:], y[cut:], 2, where, done)
    if clients_by is None:
        return DataSet("adult", *parts)
    names, owner = np.unique(both[:, source.columns.index(clients_by)], return_inverse=True)
    owner = owner.astype(np.int64)
    return DataSet("adult", *parts, owner[:cut], owner[cut:], tuple(str(name) for name in names))


def credit_default(data_dir: Path | None = None) -> DataSet:
    """30,000 credit card clients, 2 classes (default next month); a fifth is the test part. Raises
    DataMissing.

    Money goes through a signed logarithm; sex, education and marriage become indicators. (Yeh and Lien 2009.)
    """
    files, where = obtain(published()["credit-default"], data_dir)
    values = _rows(files["UCI_Credit_Card.csv"])[1:].astype(np.float64)[:, 1:]
    limit, groups, age, delays, money = np.split(values[:, :-1], [1, 4, 5, 11], axis=1)
    columns = [_money(limit), age / 100, delays / 8, _money(money)]
    columns += [indicators(column.astype(np.int64).astype(str)) for column in groups.T]
    x: Floats = np.hstack(columns).astype(np.float32)
    y = values[:, -1].astype(np.int64)
    return held_out("credit-default", x, y, 2, where, "scaled by constants, groups as indicators")


def _rows(content: bytes) -> Table:
    """The cells of a comma-separated file as text, stripped; empty lines and lines that open with `|` are
    left out.
    """
    text = content.decode("ascii")
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("|"))
    cells = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)))]
    return np.array(cells, dtype=np.str_)


def _hospital(rows: Table) -> tuple[Floats, Labels, Floats, Labels]:
    kept = np.delete(rows, [10, 11, 12], axis=1)
    numbers = kept[~(kept == "?").any(axis=1)].astype(np.float64)
    pain, ecg = numbers[:, 2:3], numbers[:, 6:7]
    groups = [pain == (2, 3, 4), ecg == (1, 2)]  # the first value of each is the reference
    x = np.hstack([np.delete(numbers[:, :-1], [2, 6], axis=1), *groups])
    y = (numbers[:, -1] > 0).astype(np.int64)
    train, test = holdout(y, 0.34)
    x_train, x_test = standardise(x[train], x[test])
    return x_train, y[train], x_test, y[test]


def _adult_features(rows: Table, columns: tuple[str, ...]) -> Floats:
    column = {name: rows[:, index] for index, name in enumerate(columns)}
    number = {
        name: column[name].astype(np.float64)[:, np.newaxis] for name in column if column[name][0].isdigit()
    }
    numeric = [
        number["age"] / 100,
        number["education-num"] / 16,
        number["hours-per-week"] / 100,
        _money(number["capital-gain"]),
        _money(number["capital-loss"]),
    ]
    features: Floats = np.hstack([*numeric, *(indicators(column[name]) for name in _ADULT_GROUPS)])
    return features.astype(np.float32)


def _money(amount: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Signed logarithm, 1 at a million."""
    scaled: npt.NDArray[np.float64] = np.sign(amount) * np.log1p(np.abs(amount)) / np.log(1e6)
    return scaled
