"""A user's own table: a CSV file with a header becomes a data set for classification.

What belongs here: how columns become numbers. What does not: published tables (`tables`), whose columns are known.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fl.data.dataset import DataSet, holdout, indicators, standardise
from protocols.errors import Misuse, require

MOST_VALUES = 64
Column = list[str]


def csv_file(
    file: str, target: str, clients_by: str | None = None, share: float = 0.2, data_dir: Path | None = None
) -> DataSet:
    """Return the data set of a CSV file, whose first line names its columns; commas, semicolons or tabs separate them.

    target: the column to predict; its values, sorted, are the classes. clients_by: the column whose values are the
    natural clients; it is no feature. share: of the rows for the test, in (0, 1), spread over the classes. A column of
    numbers is scaled to mean 0 and deviation 1 of the training rows of its client (of all, without `clients_by`);
    another one becomes an indicator per value. The file is looked for in `data_dir`, then in the working folder.

    Raises Misuse for a file that cannot be read, a column that is not there, an empty cell, text among numbers, fewer
    than two classes, and a target that is no class but a number. Its words hold no cell, for a server may be told them;
    a note (`BaseException.add_note`) says what was found, to who reads the traceback or the command line here.

        csv_file("patients.csv", target="outcome", clients_by="hospital")
    """
    path = next((p for p in (Path(data_dir or "") / file, Path(file)) if p.is_file()), None)
    if path is None:
        raise Misuse(f"csv: there is no file {file!r} here" + (f", nor in {data_dir}" if data_dir else ""))
    require(0 < share < 1, "a share of the rows for the test between 0 and 1", share, "csv")
    columns = _columns(path)
    for name in (target, *([clients_by] if clients_by is not None else [])):
        if name not in columns:
            raise _found(
                f"{path}: there is no column {name!r} among its {len(columns)}: is its first line their names?",
                f"They are {', '.join(columns)}.",
            )
    if clients_by == target:
        raise Misuse(f"{path}: the column {target!r} cannot be both the target and the clients")
    classes, y = np.unique(columns.pop(target), return_inverse=True)
    _require_classes(path, target, classes, len(y))
    sites, owner = np.unique(columns.pop(clients_by) if clients_by else [""] * len(y), return_inverse=True)
    x = _features(path, columns)
    y, owner = y.astype(np.int64), owner.astype(np.int64)
    train, test = holdout(y, share)
    scaled = np.zeros(x.shape, np.float32)
    for site in range(len(sites)):
        mine, others = train[owner[train] == site], test[owner[test] == site]
        if len(mine):
            scaled[mine], scaled[others] = standardise(x[mine], x[others])
    done = "numbers scaled " + (
        "by each client with its own rows" if clients_by else "with all training rows"
    )
    made = DataSet(
        path.stem,
        scaled[train],
        y[train],
        scaled[test],
        y[test],
        len(classes),
        str(path),
        f"{done}, groups as indicators",
    )
    if clients_by is None:
        return made
    return replace(
        made, clients_train=owner[train], clients_test=owner[test], client_names=tuple(map(str, sites))
    )


def _require_classes(path: Path, target: str, classes: npt.NDArray[np.str_], rows: int) -> None:
    """Raises Misuse for a target that is none: one value, numbers to predict, one class in two writings."""
    if len(classes) < 2:
        raise Misuse(f"{path}: the target {target!r} has one value in all rows; expected two or more classes")
    if len(classes) > max(10, rows // 5):
        raise Misuse(
            f"{path}: the target {target!r} has {len(classes)} different values in {rows} rows, which are no classes: "
            "group them, or predict a number with a data function and loop of your own (data, train, evaluate)"
        )
    known: dict[object, str] = {}
    for value in map(str, classes):
        number = _number(value)
        other = known.setdefault(value.casefold() if number is None else number, value)
        if other != value:
            raise _found(
                f"{path}: the target {target!r} has one class in two writings (upper and lower case, or 1 and 1.0): "
                "write a class in one way",
                f"They are {other!r} and {value!r}.",
            )


def _found(refused: str, seen: str) -> Misuse:
    """A refusal, with the words that hold cells as its note; a first line that is no header is cells."""
    error = Misuse(refused)
    error.add_note(seen)
    return error


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _columns(path: Path) -> dict[str, Column]:
    """Return the cells by column, stripped. Raises Misuse, naming the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            separator = max(",;\t", key=opened.readline().count)
            opened.seek(0)
            table = csv.reader(opened, delimiter=separator)
            header, *rows = [[cell.strip() for cell in row] for row in table if any(row)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise _found(
            f"{path}: it cannot be read as a CSV file in UTF-8 with a header",
            f"{type(error).__name__}: {error}",
        ) from None
    if len(set(header)) != len(header) or not rows:
        got = f"{len(set(header))} names in {len(header)} columns, {len(rows)} rows"
        raise _found(
            f"{path}: expected a header of distinct names and rows below it, got {got}", f"They are {header}."
        )
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise Misuse(f"{path}, row {number}: expected {len(header)} cells, got {len(row)}")
        if "" in row:
            raise _found(
                f"{path}, row {number}: expected no empty cell", f"It is under {header[row.index('')]!r}."
            )
    return {name: list(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}


def _features(path: Path, columns: dict[str, Column]) -> npt.NDArray[np.float64]:
    made = [_feature(path, name, np.array(cells)) for name, cells in columns.items()]
    if not made:
        raise Misuse(f"{path}: expected columns besides the target, to predict it from")
    return np.hstack(made)


def _feature(path: Path, name: str, cells: npt.NDArray[np.str_]) -> npt.NDArray[np.float64]:
    """Return a column as numbers: one column, or an indicator per value of text."""
    texts = [row for row, cell in enumerate(cells, 2) if _number(cell) is None]
    points = [row for row, cell in enumerate(cells, 2) if _number(cell.replace(",", ".")) is None]
    if texts and 2 * len(points) < len(cells):
        raise _found(
            f"{path}, row {texts[0]}: no number, in {name!r}, a column of numbers (with a decimal point): mend or "
            "leave out such rows",
            f"It is {str(cells[texts[0] - 2])!r}.",
        )
    try:
        numbers = cells.astype(np.float64)[:, np.newaxis]
    except ValueError:
        values = np.unique(cells)
        if len(values) > MOST_VALUES:
            raise Misuse(
                f"{path}: the column {name!r} holds text with {len(values)} different values: a name or a date is no "
                f"feature; leave it out, or group it into at most {MOST_VALUES}"
            ) from None
        numbers = indicators(cells)
    if not np.isfinite(numbers).all():
        raise Misuse(
            f"{path}: the column {name!r} holds NaN or infinity: remove such rows, or replace the values"
        )
    return numbers
