"""`secagg audit sample-dp`: a verdict per parameter on a user's own model, data and loss, and its exit codes."""

import json
from pathlib import Path

import pytest

from fl.cli import invoke

MINE = """
import torch
from torch import nn
from torch.nn import functional

class Reader(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.words, self.inner, self.tied = nn.Embedding(20, 8), nn.Linear(8, 8), tied

    def forward(self, x):
        h = torch.tanh(self.inner(self.words(x.T))).mean(0)  # time first
        return functional.linear(h, self.words.weight) if self.tied else h

def sound():
    return Reader(False)

def tied():
    return Reader(True)

def data():
    x = torch.randint(0, 20, (24, 9))
    return {"words": x, "label": x[:, 0] % 8}

def loss(model, batch, criterion):
    return criterion(model(batch["words"]), batch["label"])
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_reader.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def asked(model: str, *more: str) -> list[str]:
    return [
        "audit",
        "sample-dp",
        f"--model=my_reader:{model}",
        "--data=my_reader:data",
        "--loss=my_reader:loss",
        *more,
    ]


@pytest.mark.usefixtures("here")
def test_a_sound_model_passes_with_one_json_object_and_a_measured_bound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(asked("sound", "--canaries=60", "--json")) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["passed"]
    assert {p["name"]: p["status"] for p in found["parameters"]}["inner.weight"] == "sound"
    assert 0.5 < found["modes"]["ghost"]["moved_clips"] < 1.02
    assert found["lower_bound"]["measured"] <= found["lower_bound"]["stated"]
    assert "about" in printed.err  # how long the canaries take, before they start


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("gradients", ["hooks", "functorch", "ghost"])
def test_a_weight_used_by_a_function_does_not_pass_and_is_named(
    gradients: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(asked("tied", f"--gradients={gradients}")) == 1
    printed = capsys.readouterr().out
    assert "did not pass" in printed
    assert "words.weight" in printed
    assert "outside the module" in " ".join(printed.split())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "wrong",
    [
        ["audit", "sample-dp", "--model=my_reader:sound"],
        asked("nothing"),
        asked("sound", "--gradients=magic"),
        asked("sound", "--only=exact-sum"),
        asked("data"),
        ["audit", "sample-dp", "--model=mlp", "--data=my_reader:data"],
        ["audit", "secagg", "--model=my_reader:sound"],
    ],
)
def test_wrong_requests_end_in_two(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(wrong) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_built_in_models_and_data_sets_are_audited_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["audit", "sample-dp", "--model=logistic", "--data=digits", "--canaries=0"]) == 0
    assert "passed" in capsys.readouterr().out
