"""Every public name's docstring is enough to use it: its arguments in lists, what is raised, an example that runs."""

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import dp
import fl
import fl.copies
import fl.personal
import he
import protocols
import secagg
from fl.run_options import RunOptions
from protocols.randomness import SystemRandom

PACKAGES = (protocols, secagg, he, dp, fl)
PUBLIC = {name: getattr(package, name) for package in PACKAGES for name in package.__all__}
PUBLIC["RunOptions"] = RunOptions  # Federation's own options: it names them, and this explains them
RAISE_NOTHING = {"Credentials", "Outcome", "PlainSum", "SecureSum", "SharedByClients"}
"""Their constructors check nothing."""
API = "\n".join(page.read_text() for page in (Path(__file__).parents[2] / "docs" / "api").glob("*.md"))


def make() -> torch.nn.Module:
    return torch.nn.Linear(2, 2)


@pytest.fixture(scope="module")
def scenery() -> dict[str, Any]:
    """What examples take for granted: the public names, a model's factory, six clients' loaders."""
    labels = torch.arange(8) % 2
    loaders = {
        name: DataLoader(TensorDataset(torch.eye(2)[labels] + torch.rand(8, 2) / 4, labels), batch_size=4)
        for name in "abcdef"
    }
    return {
        **PUBLIC,
        "fl": fl,
        "torch": torch,
        "SystemRandom": SystemRandom,
        "make": make,
        "loaders": loaders,
    }


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_docstring_lists_the_arguments_and_says_what_is_raised(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name]) or ""
    listed = re.findall(r"^- (\w+): \S", text, re.MULTILINE)
    assert sorted(listed) == sorted(inspect.signature(PUBLIC[name]).parameters)
    assert bool(re.search(r"^Raises \w+", text, re.MULTILINE)) == (name not in RAISE_NOTHING)
    assert re.search(rf"^::: {PUBLIC[name].__module__}.{name}$", API, re.MULTILINE), "no API page shows it"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_docstring_ends_with_an_example_that_runs(
    name: str, scenery: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.split(r"\n\n(?=    \S)", inspect.getdoc(PUBLIC[name]) or "", maxsplit=1)[-1]
    assert all(line.startswith("    ") for line in code.splitlines() if line), "nothing stands behind it"
    assert name in code, "it uses what it explains"
    exec(compile(textwrap.dedent(code), name, "exec"), dict(scenery))
