"""What a table of comma-separated values must be, and what a refusal of one says."""

import re
from pathlib import Path

import pytest

from fl.data.csv_file import csv_file
from protocols.errors import Misuse
from tests.unit.fl.hospitals import HOSPITALS, table


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,y\n1,0\n,1\n", "row 3: expected no empty cell"),
        ("a,y\n1,0\n1,1,2\n", "row 3: expected 2 cells, got 3"),
        ("a,y\n1,0,\n", "row 2: expected 2 cells, got 3"),
        ("a,a\n1,0\n", "distinct"),
        ("a,y\n", "rows below"),
        ("a,y\n1,0\n2,0\n", "has one value in all rows"),
        ("", "a header of distinct names"),
        ("1,0\n2,1\n", "is its first line their names?"),
        ("a,y\n1,0\n2,1\nNA,1\n3,1\n", "row 4: no number, in 'a'"),
        (
            "a;y\n1,5;0\n2,25;1\n",
            "row 2: no number, in 'a', a column of numbers .with a decimal point",
        ),
        (
            "a,y\n" + "".join(f"{i},{i / 7}\n" for i in range(90)),
            "90 different values in 90 rows, which are no classes",
        ),
        ("a,y\n1,yes\n2,Yes\n3,no\n", "has one class in two writings"),
        ("a,y\n1,1\n2,1.0\n3,0\n", "has one class in two writings"),
        ("a,y\nnan,0\n2,1\n", "NaN"),
        ("y\n0\n1\n", "columns besides"),
        ("a,y\n" + "".join(f"name-{i},{i % 2}\n" for i in range(90)), "90 different values"),
    ],
)
def test_a_table_that_is_not_one_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(Misuse, match=says):
        csv_file(str(tmp_path / "t.csv"), "y")


@pytest.mark.parametrize(
    "text",
    [
        "a,y\n1,0\n2,1\nSmith,1\n3,1\n",
        "a,y\n1,Smith\n2,smith\n3,0\n",
        "a,y\n1,Smith\n2,Smith\n",
        "Smith,Smith\n1,0\n",
        "Smith,1\nJones,0\n",
        "a,y\n1,0\nSmith,1,2\n",
        "Smith,1\n,0\n",
        "a,y\n1,Smith\xe9\n",
    ],
)
def test_no_refusal_of_a_table_holds_a_cell(tmp_path: Path, text: str) -> None:
    """A node's refusal is told to the server."""
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(Misuse) as refused:
        csv_file(str(tmp_path / "t.csv"), "y")
    assert not {"smith", "0xe9"} & set(re.findall(r"\w+", str(refused.value).lower()))


def test_each_site_scales_with_its_own_rows(tmp_path: Path) -> None:
    """Nothing about one site's numbers shows in another's features."""
    alone = csv_file(str(table(tmp_path / "a.csv")), "outcome", "hospital")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    moved = [line.replace("north,yes,", "north,yes,9") if "north" in line else line for line in lines]
    (tmp_path / "b.csv").write_text("\n".join(moved))
    other = csv_file(str(tmp_path / "b.csv"), "outcome", "hospital")
    same = alone.clients_train != alone.client_names.index("north")
    assert (alone.x_train[same] == other.x_train[same]).all()
    assert not (alone.x_train == other.x_train).all()
    assert alone.classes == 2
    assert sorted(alone.client_names) == sorted(HOSPITALS)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_semicolons_and_tabs_separate_too(tmp_path: Path, separator: str) -> None:
    commas = csv_file(str(table(tmp_path / "a.csv")), "outcome")
    (tmp_path / "b.tsv").write_text((tmp_path / "a.csv").read_text().replace(",", separator))
    assert (csv_file(str(tmp_path / "b.tsv"), "outcome").x_train == commas.x_train).all()
