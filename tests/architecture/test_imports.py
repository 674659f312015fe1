"""What is imported when: nothing heavy for `secagg --help`, each floor without the extras, and contracts that bite."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
OPTIONAL = sorted({module for modules in EXTRAS.values() for module in modules})
HEAVY = [*OPTIONAL, "numba", "scipy", "dp_accounting"]


def without(modules: list[str]) -> str:
    """A program's beginning that makes Python behave as if these were not installed."""
    return f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
"""


BLOCK = without(OPTIONAL)


def python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_imports_no_heavy_library() -> None:
    script = f"""
import sys
from fl.cli import invoke
assert invoke(["--help"]) == 0
print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    ran = python(script)
    assert (ran.returncode, ran.stderr.strip()) == (0, "[]")


@pytest.mark.parametrize(
    "package",
    [
        "protocols",
        "secagg",
        "dp",
        "he",
        "fl",
        "fl.cli",
        "fl.registry",
        "fl.adapters",
        "fl.data",
        "fl.round",
        "fl.engines.memory",
    ],
)
def test_each_package_imports_without_any_extra(package: str) -> None:
    ran = python(f"{BLOCK}\nimport {package}")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("data", "get", "digits"), "torch"),
        (("data", "get", "breast-cancer", "--json"), "torch"),
        (("run", "--rounds", "1"), "torch"),
        (("audit", "secagg"), "audit"),
        (("run", "--rounds", "1", "--engine", "flower-simulation", "--output", "{folder}"), "flower"),
        (("run", "--rounds", "1", "--privacy", "ckks", "--output", "{folder}"), "he"),
    ],
)
def test_a_missing_extra_is_one_sentence_with_the_pip_command(
    arguments: tuple[str, ...], extra: str, tmp_path: Path
) -> None:
    named = [word.format(folder=tmp_path / "run") for word in arguments]
    ran = python(without([*EXTRAS[extra]]) + "from fl.cli import main\nmain()", *named)
    assert ran.returncode == 2
    assert f"pip install 'secagg-toolkit[{extra}]'" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("tenseal", "from he import CKKSSum; CKKSSum()"),
        ("phe", "from he import PaillierSum; PaillierSum()"),
        ("torch", "from fl.models import mlp; mlp((4,), 2)"),
        ("torch", "from fl.adapters import from_numpy"),
        ("torch", "from fl.adapters import from_trainer"),
    ],
)
def test_the_library_names_the_extra_too(name: str, call: str) -> None:
    ran = python(f"{BLOCK}\n{call}")
    assert ran.returncode != 0
    assert f"{name}" in ran.stderr
    assert "pip install 'secagg-toolkit[" in ran.stderr


PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.clientapp.mod", "flwr.serverapp", "flwr.serverapp.strategy")
PUBLIC += ("flwr.simulation",)
COMPAT = ROOT / "fl" / "flower" / "compat.py"


def flwr_names(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a module imports from flwr, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.partition(".")[0] == "flwr")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "flwr":
            yield from ((str(node.module), alias.name) for alias in node.names)


def test_names_of_flwr_that_are_not_public_are_imported_in_one_file() -> None:
    """A name is public if a documented module of flwr lists it in its `__all__`."""
    public = {module: set(importlib.import_module(module).__all__) for module in PUBLIC}
    found = {
        (str(path.relative_to(ROOT)), module, name)
        for path in sorted((ROOT / "fl").rglob("*.py"))
        if path != COMPAT
        for module, name in flwr_names(path)
        if name not in public.get(module, set())
    }
    assert found == set()
    assert {module for module, _ in flwr_names(COMPAT)} - set(PUBLIC), "the test finds such names"


# (contract, module, a line that breaks it)
VIOLATIONS = [
    ("Imports run down", "protocols", "import secagg"),
    ("Imports run down", "dp", "import he"),
    ("Flower is imported", "fl", "import flwr"),
    ("TenSEAL, phe and gmpy2", "secagg", "import gmpy2"),
    ("Opacus is imported", "fl", "import opacus"),
    ("torch is imported", "protocols", "import torch"),
    ("hypothesis is imported", "secagg", "import hypothesis"),
    ("Each framework of an adapter", "fl", "import peft"),
    ("The round knows no torch", "fl/round", "import fl.seeds"),
]


def test_the_import_contracts_catch_what_they_forbid(tmp_path: Path) -> None:
    for package in ("secagg", "dp", "he", "protocols", "fl"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for number, (_, package, line) in enumerate(VIOLATIONS):
        (tmp_path / package / f"zz_{number}.py").write_text(line + "\n")
    ran = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert ran.returncode == 1
    for number, (contract, package, _) in enumerate(VIOLATIONS):
        assert f"\n{contract}" in ran.stdout
        assert f"{package.replace('/', '.')}.zz_{number} -> " in ran.stdout, ran.stdout
