"""Every public name's docstring is enough to use it: its arguments in lists, what is raised, an example that runs."""

import ast
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
import fl.adapters
import fl.callbacks
import fl.copies
import fl.personal
import he
import protocols
import secagg
from fl.run_options import RunOptions
from protocols.randomness import SystemRandom

PACKAGES = (protocols, secagg, he, dp, fl, fl.callbacks)
PUBLIC = {name: getattr(package, name) for package in PACKAGES for name in package.__all__}
PUBLIC["RunOptions"] = RunOptions  # Federation's own options: it names them, and this explains them
RAISE_NOTHING = {
    "Callback",
    "Credentials",
    "CSVLog",
    "Outcome",
    "PlainSum",
    "Run",
    "SecureSum",
    "SharedByClients",
}
"""Their constructors check nothing."""
NOT_RUN = {"MLflow", "TensorBoard", "WandB"}
"""Their libraries take longer to import than all examples to run; so do those of the adapters, which are read."""
ROOT = Path(__file__).resolve().parents[2]
API = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))


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


def check(text: str, parameters: list[str], home: str, raises: bool = True) -> str:
    """Check a docstring's lists, what it says is raised and that a page shows it; return the code of its example."""
    assert sorted(re.findall(r"^- (\w+): \S", text, re.MULTILINE)) == sorted(parameters)
    assert bool(re.search(r"^Raises \w+", text, re.MULTILINE)) == raises
    assert re.search(rf"^::: {home}$", API, re.MULTILINE), "no API page shows it"
    example = re.split(r"\n\n(?=    \S)", text, maxsplit=1)[-1]
    assert all(line.startswith("    ") for line in example.splitlines() if line), "nothing stands behind it"
    assert home.rpartition(".")[2] in example, "it uses what it explains"
    return textwrap.dedent(example)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_docstring_is_enough_and_its_example_runs(
    name: str, scenery: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, parameters = f"{PUBLIC[name].__module__}.{name}", list(inspect.signature(PUBLIC[name]).parameters)
    example = check(inspect.getdoc(PUBLIC[name]) or "", parameters, home, name not in RAISE_NOTHING)
    code = compile(example, name, "exec")
    monkeypatch.chdir(tmp_path)
    if name not in NOT_RUN:
        exec(code, dict(scenery))


@pytest.mark.parametrize("name", fl.adapters.__all__)
def test_an_adapters_docstring_is_enough(name: str) -> None:
    _, home = fl.adapters._HOMES[name]
    tree = ast.parse((ROOT / f"{home.replace('.', '/')}.py").read_text())
    (made,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    given = [*made.args.args, *made.args.kwonlyargs, *filter(None, [made.args.kwarg])]
    example = check(ast.get_docstring(made) or "", [each.arg for each in given], f"{home}.{name}")
    ast.parse(example)
