"""Data sets: what is in them, where they are looked for, and the one sentence where they are missing or damaged."""

import gzip
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fl.data import DataSet, load
from fl.data.catalogue import SOURCES, entries
from fl.data.dataset import holdout, standardise
from fl.data.download import obtain
from fl.data.images import read_idx
from fl.data.sources import DataFile, Source, read
from protocols.errors import DataMissing, Misuse
from tests.publisher import publisher

REAL = Path(os.environ.get("SECAGG_DATA", "/nowhere"))


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data of this machine is seen, and nothing is downloaded."""
    monkeypatch.delenv("SECAGG_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SECAGG_OFFLINE", "1")
    monkeypatch.setattr("fl.data.sources.SYSTEM_FOLDER", tmp_path / "system")
    return tmp_path


def real(folder: str) -> None:
    if not (REAL / folder).is_dir():
        pytest.skip(f"SECAGG_DATA does not name a folder that holds {folder}")


# (name, folder, training, test, shape, classes, natural clients)
REAL_SETS = [
    ("fashion-mnist", "fashion-mnist", 60_000, 10_000, (1, 28, 28), 10, 0),
    ("mnist", "mnist", 60_000, 10_000, (1, 28, 28), 10, 0),
    ("femnist", "femnist-leaf-sample", 28_237, 8_159, (1, 28, 28), 62, 377),
    ("heart-disease", "heart-disease", 486, 254, (13,), 2, 4),
    ("adult", "adult", 32_561, 16_281, (91,), 2, 0),
    ("credit-default", "credit-default", 24_000, 6_000, (33,), 2, 0),
    ("dickens", "dickens", 9_156, 2_289, (80,), 96, 0),
    ("shakespeare", "tinyshakespeare", 9_977, 2_590, (80,), 96, 181),
    ("shakespeare:length=40,least=1", "tinyshakespeare", 20_442, 5_247, (40,), 96, 257),
]


@pytest.mark.parametrize(("name", "folder", "train", "test", "shape", "classes", "natural"), REAL_SETS)
def test_the_published_sets_have_their_published_sizes(
    name: str, folder: str, train: int, test: int, shape: tuple[int, ...], classes: int, natural: int
) -> None:
    real(folder)
    data = load(name)
    assert (len(data.y_train), len(data.y_test)) == (train, test)
    assert (data.input_shape, data.classes, len(data.client_names)) == (shape, classes, natural)
    assert str(REAL) in data.source


@pytest.mark.parametrize(
    ("name", "theirs"), [("digits", "load_digits"), ("breast-cancer", "load_breast_cancer")]
)
def test_the_bundled_sets_are_those_of_scikit_learns_own_loaders(name: str, theirs: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = getattr(datasets, theirs)(return_X_y=True)
    ours = load(name)
    assert sorted(np.bincount(y)) == sorted(np.bincount(np.r_[ours.y_train, ours.y_test]))
    if name == "digits":
        kept = np.r_[ours.x_train, ours.x_test].reshape(len(x), -1)
        assert sorted(map(tuple, kept * 16)) == sorted(map(tuple, x))


@pytest.mark.parametrize(
    ("name", "total", "shape"), [("digits", 1797, (1, 8, 8)), ("breast-cancer", 569, (30,))]
)
def test_the_bundled_sets_need_no_file(nowhere: Path, name: str, total: int, shape: tuple[int, ...]) -> None:
    data = load(name)
    assert len(data.y_train) + len(data.y_test) == total
    assert data.input_shape == shape
    assert set(np.unique(data.y_test)) == set(range(data.classes))


def test_heart_disease_has_the_rows_of_the_four_hospitals() -> None:
    real("heart-disease")
    data = load("heart-disease")
    assert data.clients_train is not None
    assert data.clients_test is not None
    assert list(np.bincount(data.clients_train)) == [199, 172, 30, 85]
    assert list(np.bincount(data.clients_test)) == [104, 89, 16, 45]
    swiss = data.x_train[data.clients_train == 2]
    assert np.isfinite(swiss).all()  # its cholesterol column is constant
    assert np.allclose(swiss.mean(axis=0), 0, atol=1e-5)


def test_femnist_has_ink_on_empty_paper_as_the_other_images() -> None:
    real("femnist-leaf-sample")
    real("mnist")
    assert load("femnist").x_train.mean() < 0.5
    assert load("mnist").x_train.mean() < 0.5


def test_adult_splits_by_a_column_that_the_user_names() -> None:
    real("adult")
    data = load("adult:clients_by=race")
    assert len(data.client_names) == 5
    assert data.clients_train is not None
    assert data.clients_train.max() == 4
    with pytest.raises(Misuse, match="clients_by is one of"):
        load("adult:clients_by=income")


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source is not None])
def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_it(nowhere: Path, name: str) -> None:
    for given, places in (("mine", {"mine"}), (None, {"cache", "system"})):
        with pytest.raises(DataMissing) as missing:
            load(name, given and nowhere / given)
        text = str(missing.value)
        assert {place for place in ("mine", "cache", "system") if str(nowhere / place) in text} == places
        assert "--data-dir" in text or "put femnist_sample.npz" in text


def test_the_catalogue_tells_what_is_at_hand_without_reading(nowhere: Path) -> None:
    found = {entry.name: entry.found for entry in entries(None)}
    assert found["digits"] == "scikit-learn"
    assert found["mnist"] is None


CONTENT = b"some data of a publisher\n" * 40


def toy_source(url: str | None = None, content: bytes = CONTENT) -> Source:
    digest = hashlib.sha256(content).hexdigest()
    return Source("toy", (DataFile("toy.csv", digest, len(content), url),), "none")


@pytest.mark.parametrize("compressed", [True, False])
def test_the_given_folder_is_the_only_one_searched(nowhere: Path, compressed: bool) -> None:
    for place in ("mine", "system"):
        folder = nowhere / place / "toy"
        folder.mkdir(parents=True)
        if compressed:
            (folder / "toy.csv.gz").write_bytes(gzip.compress(CONTENT, mtime=0))
        else:
            (folder / "toy.csv").write_bytes(CONTENT)
    files, where = obtain(toy_source(), nowhere / "mine")
    assert files == {"toy.csv": CONTENT}
    assert where.startswith(str(nowhere / "mine"))
    assert str(nowhere / "system") in obtain(toy_source(), None)[1]
    with pytest.raises(DataMissing, match=r"empty/toy \(--data-dir\)") as missing:
        # a typing error in its name ran on the files of another folder
        obtain(toy_source(), nowhere / "empty")
    assert "system" not in str(missing.value)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("toy.csv", CONTENT[:-1]),
        ("toy.csv", CONTENT + b"x"),
        ("toy.csv.gz", gzip.compress(CONTENT, mtime=0)[:-9]),
        ("toy.csv.gz", gzip.compress(CONTENT[1:], mtime=0)),
        ("toy.csv.gz", b"not gzip at all"),
        ("toy.csv.gz", gzip.compress(bytes(10_000_000), mtime=0)),
    ],
)
def test_a_damaged_file_is_refused_by_its_path(tmp_path: Path, name: str, stored: bytes) -> None:
    (tmp_path / name).write_bytes(stored)
    with pytest.raises(DataMissing, match=name):
        read(tmp_path, toy_source().files[0])


@pytest.fixture
def address() -> Iterator[str]:
    """The toy file plain, compressed, damaged, endless or not at all."""
    bodies = {
        "/plain": CONTENT,
        "/gzip": gzip.compress(CONTENT, mtime=0),
        "/other": CONTENT[::-1],
        "/endless": CONTENT * 200,
        "/bomb": gzip.compress(bytes(50_000_000), mtime=0),
        "/cut": gzip.compress(CONTENT, mtime=0)[:30],
    }
    with publisher(bodies) as where:
        yield where


@pytest.mark.parametrize("path", ["/plain", "/gzip"])
def test_a_download_is_verified_and_kept(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, address: str, path: str
) -> None:
    monkeypatch.delenv("SECAGG_OFFLINE")
    source = toy_source(address + path)
    files, where = obtain(source, None)
    assert files == {"toy.csv": CONTENT}
    assert "downloaded" in where
    monkeypatch.setenv("SECAGG_OFFLINE", "1")
    assert obtain(source, None)[0] == files
    assert [entry.name for entry in (nowhere / "cache/secagg/data/toy").iterdir()] == ["toy.csv.gz"]


@pytest.mark.parametrize("path", ["/other", "/endless", "/bomb", "/cut", "/absent"])
def test_a_wrong_download_is_refused_and_leaves_nothing(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, address: str, path: str
) -> None:
    monkeypatch.delenv("SECAGG_OFFLINE")
    with pytest.raises(DataMissing):
        obtain(toy_source(address + path), nowhere / "mine")
    assert list((nowhere / "mine/toy").iterdir()) == []


def test_a_publisher_that_cannot_be_reached_is_named_with_the_way_out(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECAGG_OFFLINE")
    with pytest.raises(DataMissing, match=r"download failed .* --data-dir"):
        obtain(toy_source("http://127.0.0.1:1/none"), None)


@pytest.mark.parametrize(
    "bad", [b"", b"\0\0\x08\x01", b"\0\0\x08\x01\0\0\0\x04abc", b"\0\0\x0d\x01\0\0\0\1a"]
)
def test_what_is_no_idx_file_is_refused(bad: bytes) -> None:
    with pytest.raises(DataMissing):
        read_idx(bad, 1)


def test_an_idx_file_is_read_in_its_shape() -> None:
    content = bytes((0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3)) + bytes(range(6))
    assert read_idx(content, 2).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_holdout_is_disjoint_complete_and_the_same_every_time() -> None:
    labels = np.array([0] * 70 + [1] * 21 + [2] * 9)
    train, test = holdout(labels, 0.34)
    assert sorted([*train, *test]) == list(range(100))
    assert list(np.bincount(labels[test])) == [24, 7, 3]
    assert all(np.array_equal(a, b) for a, b in zip(holdout(labels, 0.34), (train, test), strict=True))


def test_a_constant_column_standardises_to_zero() -> None:
    train, test = standardise(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 6.0]]))
    assert train.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert test.tolist() == [[0.0, 1.0]]


def test_a_data_set_refuses_parts_that_do_not_fit() -> None:
    x, y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])
    DataSet("toy", x, y, x, y, 2, "here")
    with pytest.raises(Misuse, match="outside"):
        DataSet("toy", x, y, x, y, 1, "here")
    with pytest.raises(Misuse, match="3 labels"):
        DataSet("toy", x, y[:3], x, y, 2, "here")
    with pytest.raises(Misuse, match="float64"):
        DataSet("toy", x.astype(np.float64), y, x, y, 2, "here")  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="must be equal"):
        DataSet("toy", x, y, x[:, :1], y, 2, "here")
    with pytest.raises(Misuse, match="NaN"):
        DataSet("toy", np.full((4, 2), np.nan, np.float32), y, x, y, 2, "here")
    with pytest.raises(Misuse, match="natural clients"):
        DataSet("toy", x, y, x, y, 2, "here", clients_train=y[:2])


def test_a_users_own_factory_is_a_data_set_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_set_zq.py").write_text(
        "import numpy as np\n"
        "from fl.data import DataSet\n"
        "def mine(n: int = 4):\n"
        "    x, y = np.zeros((n, 2), np.float32), np.arange(n) % 2\n"
        "    return DataSet('mine', x, y, x, y, 2, 'memory')\n"
        "def wrong():\n"
        "    return 5\n"
    )
    monkeypatch.chdir(tmp_path)
    assert len(load("own_set_zq:mine:n=6").y_train) == 6
    with pytest.raises(Misuse, match=r"must be an fl\.data\.DataSet"):
        load("own_set_zq:wrong")
