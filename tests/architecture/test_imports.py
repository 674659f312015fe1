"""What is imported when: nothing heavy for `secagg --help`, each floor without the extras, and contracts that bite."""

import os
import shutil
import subprocess
import sys
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
    "package", ["protocols", "secagg", "dp", "he", "fl", "fl.cli", "fl.registry", "fl.data"]
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
    ],
)
def test_the_library_names_the_extra_too(name: str, call: str) -> None:
    ran = python(f"{BLOCK}\n{call}")
    assert ran.returncode != 0
    assert f"{name}" in ran.stderr
    assert "pip install 'secagg-toolkit[" in ran.stderr


# (contract, module, a line that breaks it)
VIOLATIONS = [
    ("Imports run down", "protocols", "import secagg"),
    ("Imports run down", "dp", "import he"),
    ("Flower is imported", "fl", "import flwr"),
    ("TenSEAL, phe and gmpy2", "secagg", "import gmpy2"),
    ("Opacus is imported", "fl", "import opacus"),
    ("torch is imported", "protocols", "import torch"),
    ("hypothesis is imported", "secagg", "import hypothesis"),
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
        assert f"{package}.zz_{number} -> " in ran.stdout, ran.stdout
