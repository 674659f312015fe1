"""Texts as windows of characters: whose they are, what follows what, and a model of them by name."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl.cli import invoke
from fl.data import DataSet, load
from fl.data.partition import partition
from fl.data.sources import DataFile, Source
from fl.data.text import ALPHABET, letters, numbers, speeches
from fl.registry import MODELS
from fl.training import evaluate, train_one_epoch
from protocols.errors import DataMissing, Misuse
from tests.toys.texts import BOOK, PLAY, small_texts


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small play and a small book in place of the published files."""
    found = small_texts(tmp_path)
    monkeypatch.setattr("fl.data.text.published", lambda: found)
    return tmp_path


def read(data: DataSet, rows: np.ndarray, test: bool = False) -> str:
    """The text of some windows of a set, with the character that follows the last."""
    x, y = (data.x_test, data.y_test) if test else (data.x_train, data.y_train)
    return letters(x[rows].astype(np.int64).ravel()) + letters(y[rows][-1:, -1])


def test_a_role_says_its_text_in_order_and_its_last_fifth_is_the_test(texts: Path) -> None:
    data = load("shakespeare:length=10,least=1", texts)
    assert data.client_names == ("JULIET", "MERCUTIO", "ROMEO")  # the nurse says nothing
    for who, name in enumerate(data.client_names):
        said = speeches(PLAY)[name]
        train, test = data.clients_train == who, data.clients_test == who
        text = read(data, train)[:-1] + read(data, test, test=True)
        assert said.startswith(text)
        assert len(said) - len(text) < 10  # what is left makes no window
        windows = int(train.sum() + test.sum())
        assert int(test.sum()) == -(-windows // 5)


def test_labels_are_the_characters_that_follow(texts: Path) -> None:
    data = load("dickens:length=7", texts)
    assert data.clients_train is None
    assert data.x_train.shape == data.y_train.shape == (len(data.y_train), 7)
    assert (data.y_train[:, :-1] == data.x_train[:, 1:]).all()
    assert (data.y_train[:-1, -1] == data.x_train[1:, 0]).all()


def test_a_book_is_read_without_what_its_publisher_added(texts: Path) -> None:
    data = load("dickens:length=7", texts)
    text = read(data, np.arange(len(data.y_train)))
    assert text.startswith('It was the best of times, "it was" the cafe of times.\nIt was')
    assert "Gutenberg" not in text + read(data, np.arange(len(data.y_test)), test=True)


def test_a_book_without_an_end_is_refused(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = BOOK[: len(BOOK) // 2].encode()
    (texts / "dickens" / "a.txt").write_bytes(content)
    file = DataFile("a.txt", hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr("fl.data.text.published", lambda: {"dickens": Source("dickens", (file,), "none")})
    with pytest.raises(DataMissing, match=r"a\.txt has no lines that say where the book begins and ends"):
        load("dickens", texts)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dickens:length=0", "length"),
        ("dickens:length=250", "length"),
        ("shakespeare:length=0", "length"),
        ("shakespeare", "no role says 500 characters"),
        ("shakespeare:length=200,least=1", "no role says 401 characters"),
    ],
)
def test_windows_that_no_text_has_are_refused(texts: Path, name: str, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        load(name, texts)


@given(st.text(ALPHABET))
def test_what_is_in_the_alphabet_stays_as_it_is(text: str) -> None:
    assert letters(numbers(text)) == text


@given(st.text())
def test_any_text_becomes_numbers_of_the_alphabet(text: str) -> None:
    found = numbers(text)
    assert ((found >= 0) & (found < len(ALPHABET))).all()


def test_roles_are_clients_and_no_rule_splits_them_by_label(texts: Path) -> None:
    data = load("shakespeare:length=10,least=1", texts)
    assert list(partition(data, "natural")) == ["JULIET", "MERCUTIO", "ROMEO"]
    assert len(partition(data, "iid", 3)) == 3
    for rule in ("dirichlet", "classes"):
        with pytest.raises(Misuse, match="several labels per example"):
            partition(data, rule, 2)


def test_a_recurrent_model_answers_every_place_and_learns_a_text(texts: Path) -> None:
    torch.manual_seed(0)
    data = load("dickens:length=20", texts)
    model = MODELS.build("gru:hidden=24", input_shape=data.input_shape, classes=data.classes)
    assert isinstance(model, torch.nn.Module)
    loader = [(torch.from_numpy(data.x_train), torch.from_numpy(data.y_train.copy()))]
    assert model(loader[0][0]).shape == (len(data.y_train), 96, 20)
    begun, criterion = (
        evaluate(model, loader, torch.nn.functional.cross_entropy),
        torch.nn.functional.cross_entropy,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        reported = train_one_epoch(model, loader, optimizer, criterion)
    assert reported["loss"] < begun["loss"] / 4
    assert 0.8 < reported["accuracy"] <= 1
    again = [model.write(numbers("It was "), 40, seed=7) for _ in range(2)]
    assert again[0] == again[1]
    assert len(again[0]) == 40
    assert set(letters(np.array(again[0]))) <= set(ALPHABET)


@pytest.mark.parametrize(("model", "shape"), [("gru", (1, 8, 8)), ("gru:hidden=0", (80,))])
def test_what_a_recurrent_model_cannot_be_is_refused(model: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(Misuse):
        MODELS.build(model, input_shape=shape, classes=96)


def test_both_are_trained_by_name_and_a_model_of_one_label_is_refused_by_name(
    texts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(texts)
    common = ["run", "--data-dir", str(texts), "--rounds=1", "--json", "--batch-size=4"]
    roles = [*common, "--data=shakespeare:length=10,least=1", "--partition=natural"]
    assert invoke([*roles, "--model=gru:hidden=8"]) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == 1
    assert (
        invoke(
            [*common, "--data=dickens:length=10", "--partition=iid", "--clients=2", "--model=gru:hidden=8"]
        )
        == 0
    )
    capsys.readouterr()
    assert invoke([*roles, "--model=mlp"]) == 2
    assert "expected a model whose outputs are logits" in capsys.readouterr().err
