"""FEMNIST: the publisher's archive is downloaded, verified, converted and read; what is wrong is one sentence."""

import bz2
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from fl.cli import invoke
from fl.data import femnist_tff, load
from protocols.errors import DataMissing, Misuse
from tests.publisher import publisher

WRITERS = {"f0000_14": (5, 1), "f0001_41": (3, 2), "f1506_35": (4, 2)}
"""Writer -> images for training and for the test."""

Alter = Callable[[h5py.Group], None]


def hdf5(part: int, alter: Alter | None = None) -> bytes:
    """A file in TensorFlow Federated's layout; pixels are n/255 with most paper 1, labels come as (n, 1)."""
    generator = np.random.default_rng(part)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, counts in WRITERS.items():
            writer = file.create_group(f"examples/{name}")
            pixels = np.ones((counts[part], 28, 28), np.float32)
            pixels[:, 10:18, 10:18] = generator.integers(0, 256, (counts[part], 8, 8)) / np.float32(255)
            writer["pixels"] = pixels
            writer["label"] = generator.integers(0, 62, (counts[part], 1), dtype=np.int32)
        if alter is not None:
            alter(file)
    return buffer.getvalue()


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{name}.h5")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


TRAIN, TEST = hdf5(0), hdf5(1)
GOOD = archive(fed_emnist_train=TRAIN, fed_emnist_test=TEST)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The archive whole, cut off though its length was promised, damaged, or endless."""
    bodies = {"/good": GOOD, "/cut": GOOD, "/damaged": GOOD[:-1] + b"x", "/endless": GOOD * 50}
    with publisher(bodies, cut={"/cut"}) as where:
        yield where


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> Path:
    """No data of this machine is seen; the publisher is the one above, with the archive above."""
    monkeypatch.delenv("SECAGG_DATA", raising=False)
    monkeypatch.delenv("SECAGG_OFFLINE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("fl.data.sources.SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(femnist_tff, "ADDRESS", f"{address}/good")
    monkeypatch.setattr(femnist_tff, "SHA256", hashlib.sha256(GOOD).hexdigest())
    monkeypatch.setattr(femnist_tff, "LIMIT", 2 * len(GOOD))
    return tmp_path


def place(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts an archive where a user puts it, and lets it be the published one."""
    path = folder / "femnist-tff" / "fed_emnist.tar.bz2"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    monkeypatch.setattr(femnist_tff, "SHA256", hashlib.sha256(content).hexdigest())
    return path


def test_the_set_is_downloaded_converted_and_found_again_without_network(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("femnist")
    assert data.client_names == tuple(WRITERS)
    assert (len(data.y_train), len(data.y_test), data.classes) == (12, 5, 62)
    assert data.clients_train is not None
    assert data.clients_test is not None
    assert list(np.bincount(data.clients_train)) == [5, 3, 4]
    assert list(np.bincount(data.clients_test)) == [1, 2, 2]
    with h5py.File(io.BytesIO(TRAIN)) as file:
        for index, name in enumerate(WRITERS):
            mine = data.clients_train == index
            ink = 1 - file[f"examples/{name}/pixels"][()]
            assert np.allclose(data.x_train[mine, 0], ink, atol=1e-6)  # n/255 comes through unharmed
            assert data.y_train[mine].tolist() == file[f"examples/{name}/label"][:, 0].tolist()
    assert data.x_train[0, 0, 0, 0] == 0  # paper
    kept = sorted(path.name for path in (home / "cache/secagg/data/femnist-tff").iterdir())
    assert kept == ["femnist.npz", "femnist.npz.sha256"]

    monkeypatch.setenv("SECAGG_OFFLINE", "1")
    again = load("femnist:edition=tff")
    assert np.array_equal(again.x_train, data.x_train)
    assert np.array_equal(again.y_test, data.y_test)


def test_an_archive_that_the_user_brings_is_taken_and_stays(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(home / "mine", GOOD, monkeypatch)
    monkeypatch.setenv("SECAGG_OFFLINE", "1")
    assert len(load("femnist", home / "mine").y_train) == 12
    assert path.read_bytes() == GOOD


def test_so_many_writers_as_are_asked_for(home: Path) -> None:
    data = load("femnist:writers=2")
    assert data.client_names == ("f0000_14", "f0001_41")
    assert (len(data.y_train), len(data.y_test)) == (8, 3)
    with pytest.raises(Misuse, match="has 3 writers; 4 were asked for"):
        load("femnist:writers=4")
    for wrong in ("writers=0", "writers=-1", "edition=nist"):
        with pytest.raises(Misuse, match="femnist"):
            load(f"femnist:{wrong}")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/cut", "ended after .* of .* bytes"),
        ("/damaged", "not the published file"),
        ("/endless", "sends more than"),
        ("/absent", "download failed"),
    ],
)
def test_a_wrong_download_is_one_sentence_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, address: str, path: str, says: str
) -> None:
    monkeypatch.setattr(femnist_tff, "ADDRESS", address + path)
    with pytest.raises(DataMissing, match=says):
        load("femnist")
    assert list((home / "cache/secagg/data/femnist-tff").iterdir()) == []


def test_a_missing_set_names_every_place_and_both_ways_to_get_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECAGG_OFFLINE", "1")
    ways = ("femnist_sample.npz", "--data-dir", "SECAGG_OFFLINE")
    for folder, places in ((home / "mine", ("mine/femnist-tff",)), (None, ("cache", "system"))):
        with pytest.raises(DataMissing) as missing:
            load("femnist", folder)
        for words in (*places, *ways):
            assert words in str(missing.value)
    with pytest.raises(DataMissing, match=r"femnist_sample\.npz"):
        load("femnist:edition=leaf-sample")


def without_label(file: h5py.Group) -> None:
    del file["examples/f0001_41/label"]


def without_examples(file: h5py.Group) -> None:
    del file["examples"]


def too_few_labels(file: h5py.Group) -> None:
    without_label(file)
    file["examples/f0001_41/label"] = np.array([1], np.int32)


def other_label(file: h5py.Group) -> None:
    file["examples/f0001_41/label"][0] = 62


def a_nan(file: h5py.Group) -> None:
    file["examples/f0001_41/pixels"][0, 0, 0] = np.nan


def of_bytes(file: h5py.Group) -> None:
    file["examples/f0001_41/pixels"][0, 0, 0] = 255


def other_kind(file: h5py.Group) -> None:
    without_label(file)
    file["examples/f0001_41/label"] = np.array(["a", "b", "c"], dtype=h5py.string_dtype())


ALTERATIONS = (
    without_label,
    without_examples,
    too_few_labels,
    other_label,
    a_nan,
    of_bytes,
    other_kind,
)


@pytest.mark.parametrize("alter", ALTERATIONS)
def test_another_layout_is_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch, alter: Alter) -> None:
    place(home / "mine", archive(fed_emnist_train=hdf5(0, alter), fed_emnist_test=TEST), monkeypatch)
    with pytest.raises(DataMissing, match="as TensorFlow Federated lays it out"):
        load("femnist", home / "mine")
    assert [path.name for path in (home / "mine/femnist-tff").iterdir()] == ["fed_emnist.tar.bz2"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (archive(fed_emnist_train=TRAIN), "lacks fed_emnist_test.h5"),
        (archive(fed_emnist_train=TRAIN, fed_emnist_test=b"no HDF5"), "as TensorFlow Federated lays it out"),
        (archive(fed_emnist_train=TRAIN, fed_emnist_test=TEST[:-500]), "as TensorFlow Federated lays it out"),
        (b"no archive", "no readable archive"),
        (GOOD[: len(GOOD) // 2], "no readable archive"),
        (bz2.compress(b"x" * 5000), "no readable archive"),
    ],
)
def test_a_wrong_archive_is_one_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, says: str
) -> None:
    place(home / "mine", content, monkeypatch)
    with pytest.raises(DataMissing, match=says):
        load("femnist", home / "mine")
    assert [path.name for path in (home / "mine/femnist-tff").iterdir()] == ["fed_emnist.tar.bz2"]


def test_an_archive_that_is_not_the_published_one_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(home / "mine", GOOD[:-1] + b"x", monkeypatch)
    monkeypatch.setattr(femnist_tff, "SHA256", hashlib.sha256(GOOD).hexdigest())
    with pytest.raises(DataMissing, match="not what it should be"):
        load("femnist", home / "mine")


@pytest.mark.parametrize("harm", ["flip", "cut", "no sum"])
def test_a_damaged_converted_file_is_refused_by_its_path(home: Path, harm: str) -> None:
    load("femnist")
    path = home / "cache/secagg/data/femnist-tff/femnist.npz"
    content = path.read_bytes()
    if harm == "no sum":
        path.with_name("femnist.npz.sha256").unlink()
    else:
        path.write_bytes(content[:-9] if harm == "cut" else content[:99] + b"?" + content[100:])
    with pytest.raises(DataMissing, match=r"femnist\.npz"):
        load("femnist")


def test_a_run_over_the_writers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["data", "get", "femnist", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["train"], facts["natural_clients"]) == (12, 3)
    arguments = [
        "--data=femnist",
        "--partition=natural",
        "--model=logistic",
        "--privacy=secagg",
        "--rounds=1",
    ]
    assert invoke(["run", *arguments, f"--output={home / 'run'}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clients"] == 3


def test_without_h5py_nothing_is_downloaded_and_the_extra_is_named(home: Path) -> None:
    block = (
        "import sys; sys.modules['h5py'] = None\n"
        "from fl.data import femnist_tff\n"
        f"femnist_tff.ADDRESS = {femnist_tff.ADDRESS!r}\n"
        "from fl.cli import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", block, "data", "get", "femnist"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ},
    )
    assert ran.returncode != 0
    assert "pip install 'secagg-toolkit[femnist]'" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (home / "cache").exists()
