"""Models: they take the shape of the examples, give a logit per class, and learn; a wrong shape is refused."""

from pathlib import Path

import pytest
import torch

from fl.data import load
from fl.registry import MODELS
from protocols.errors import Misuse


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("logistic", (13,)),
        ("logistic", (1, 8, 8)),
        ("mlp", (30,)),
        ("mlp:hidden=5", (1, 28, 28)),
        ("cnn", (1, 8, 8)),
        ("cnn:width=4,hidden=8", (3, 32, 30)),
    ],
)
def test_a_model_gives_one_logit_per_class(name: str, shape: tuple[int, ...]) -> None:
    model = MODELS.build(name, input_shape=shape, classes=7)
    assert isinstance(model, torch.nn.Module)
    assert model(torch.zeros(5, *shape)).shape == (5, 7)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cnn", (30,)),
        ("cnn", (1, 3, 8)),
        ("cnn:width=0", (1, 8, 8)),
        ("mlp:hidden=0", (4,)),
        ("mlp:depth=2", (4,)),
    ],
)
def test_what_a_model_cannot_be_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(Misuse):
        MODELS.build(name, input_shape=shape, classes=2)


def test_a_users_factory_may_take_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_model_zq.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Linear(2, 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(MODELS.build("own_model_zq:make", input_shape=(2,), classes=2), torch.nn.Linear)


@pytest.mark.parametrize(("name", "above"), [("logistic", 0.85), ("mlp", 0.85), ("cnn:width=4", 0.85)])
def test_each_model_learns_digits(name: str, above: float) -> None:
    data = load("digits")
    torch.manual_seed(0)
    model = MODELS.build(name, input_shape=data.input_shape, classes=data.classes)
    assert isinstance(model, torch.nn.Module)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    right = model(torch.from_numpy(data.x_test)).argmax(1) == torch.from_numpy(data.y_test)
    assert right.float().mean() > above
