"""Our names are ours: from the checkout each resolves to the checkout, and the wheel holds exactly five packages."""

import subprocess
import sys
import tomllib
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIVE = {"secagg", "dp", "he", "protocols", "fl"}

PARALLEL = {  # folders of a package with the same parts: there, a file name that stands twice is one role
    "secagg": {"client", "server"},
    "dp": {"sample", "correlated"},
    "he": {"he", "ckks", "paillier", "roles"},
    "fl": {"network", "flower", "nvflare"},
    "protocols": set(),
}
BASE = "base.py"  # what the others of its folder derive from


@pytest.mark.parametrize("name", sorted(FIVE))
def test_a_file_name_stands_twice_only_for_one_role(name: str) -> None:
    places = defaultdict(set)
    for path in (ROOT / name).rglob("*.py"):
        places[path.name].add(path.parent.name)
    del places["__init__.py"]
    places.pop(BASE, None)
    assert {file: at for file, at in places.items() if len(at) > 1 and not at <= PARALLEL[name]} == {}


@pytest.mark.parametrize("name", sorted(FIVE | {"benchmarks", "examples", "tests"}))
def test_each_name_resolves_to_the_checkout(name: str) -> None:
    script = f"import importlib.util as u; print(u.find_spec({name!r}).origin)"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(ROOT / name / "__init__.py")


@pytest.mark.parametrize("name", sorted(FIVE))
def test_each_package_is_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").is_file()


def test_the_wheel_holds_exactly_the_five_packages(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name).parts for name in archive.namelist()]
        code = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".py"))
    assert {parts[0] for parts in names if not parts[0].endswith(".dist-info")} == FIVE
    held = {"/".join(parts) for parts in names}
    modules = (path for name in FIVE for path in (ROOT / name).rglob("*.py"))
    assert {str(path.relative_to(ROOT)) for path in modules} <= held
    assert {f"{name}/py.typed" for name in FIVE} <= held
    assert "entry_points.txt" in {parts[-1] for parts in names}
    # for tests alone
    assert [word for word in (b"CertificateBuilder", b"flower-superlink") if word in code] == []


def test_the_extras_of_the_metadata_are_the_ones_the_guard_knows() -> None:
    from protocols.extras import EXTRAS

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == {*EXTRAS, "dev"}
    for extra, modules in EXTRAS.items():
        listed = " ".join(project["optional-dependencies"][extra]).replace("scikit-learn", "sklearn")
        unnamed = [module for module in modules if module not in listed and module != "ray"]
        assert unnamed == []  # ray comes with flwr[simulation]
