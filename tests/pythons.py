"""Installs the project on every Python that the metadata names, and runs it there: `make pythons`.

A wheel is built and installed into a fresh environment with the constraints file, wheels only; then the command
and a part of the tests run in a folder that does not hold our packages, so that what was installed is what is
tested. A Python that is not found is said to be missing, never passed over. `docs/pythons.json` holds the last
outcome, `docs/install.md` its table; both are checked by `tests/architecture/test_supported_pythons.py`.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "pythons.json"
PAGE = ROOT / "docs" / "install.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS: list[str] = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))

SMALL = ("--rounds=2", "--clients=5", "--model=logistic", "--json")
EXTRAS = (
    "torch",
    "trainer",
    "lightning",
    "femnist",
    "he",
    "flower",
    "audit",
    "plots",
    "tensorboard",
    "mlflow",
    "wandb",
    "search",
    "nvflare",
)
COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("--help",): (),
    ("doctor", "--json"): (),
    ("audit", "secagg+", "--examples=3"): ("audit",),
    ("run", *SMALL, "--privacy=secagg+"): ("torch",),
    ("run", *SMALL, "--privacy=client-dp:epsilon=8,delta=1e-3", "--privacy=secagg+"): ("torch",),
    ("run", *SMALL, "--privacy=ckks"): ("torch", "he"),
    ("run", *SMALL, "--privacy=paillier:key_bits=2048"): ("torch", "he"),
}
"""Command line -> the extras that it needs."""

TESTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("audit",): (
        "tests/vectors",
        "tests/contracts/test_plain.py",
        "tests/property/test_codec.py",
        "tests/property/test_masks.py",
    ),
    ("audit", "he"): ("tests/property/test_packing.py", "tests/property/test_paillier_packing.py"),
    ("audit", "torch"): ("tests/unit/test_federation.py", "tests/unit/test_fl_data.py"),
    ("audit", "torch", "femnist"): ("tests/unit/fl/test_femnist.py",),
    ("audit", "torch", "he", "nvflare"): ("tests/nvflare/test_nvflare_rounds.py",),
}
"""Extras -> the tests that run where all of these are installed (hypothesis comes with `audit`)."""

UNREACHABLE = "no package index can be reached"
MARK = re.compile(r"(?<=<!-- pythons -->\n).*?(?=<!-- /pythons -->)", re.DOTALL)
Report = Callable[[str], None]


def interpreters(version: str) -> list[Path]:
    """The Pythons of this version that are found: on the path, and among those that pyenv keeps."""
    places = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        ran = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False)
        kept = Path(ran.stdout.strip() or "/nowhere") / "versions"
        places += [str(path) for path in sorted(kept.glob(f"{version}.*/bin/python{version}"))]
    return [Path(place) for place in places if place and _is(Path(place), version)]


def check(version: str, work: Path, extras: Iterable[str] = EXTRAS, report: Report = print) -> dict[str, Any]:
    """Installs and runs the project on one Python: what was installed, what ran, how it ended.

    `outcome` is `passed`, `failed` or `not found`.
    """
    found = interpreters(version)
    if not found:
        report(f"{version}: not found on this machine; nothing is known about it")
        return {"python": version, "outcome": "not found"}
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(dir=work, prefix=f"python{version}."))
    python = _environment(found[0], home)
    full = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version())"], capture_output=True, text=True
    ).stdout.strip()
    report(f"{version}: {full}")
    installed = {"core": _install(python, home, "")}
    for extra in extras if installed["core"] == "installed" else ():
        installed[extra] = _install(python, home, extra)
        report(f"{version}: {extra} {installed[extra]}")
    there = {extra for extra, said in installed.items() if said == "installed"}
    commands = _commands(python, home, there, report) if "core" in there else {}
    tests = _tests(python, home, there, report) if "core" in there else {}
    ended = [*commands.values(), tests.get("exit", 1)]
    shutil.rmtree(home, ignore_errors=True)
    return {
        "python": full,
        "outcome": "passed" if ended and not any(ended) else "failed",
        "installed": installed,
        "commands": commands,
        "tests": tests,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


def added(version: str, work: Path, extra: str) -> dict[str, Any]:
    """What was last found on one Python, with what comes of an extra that came later, beside those its tests need."""
    last: dict[str, Any] = json.loads(RESULT.read_text())["pythons"][version]
    tried = check(version, work, ("torch", "femnist", "he", "audit", extra))
    if tried["outcome"] != "passed" or set(tried["installed"].values()) != {"installed"}:
        return {**last, **tried, "outcome": "failed"}
    return {**last, "installed": {**last["installed"], extra: tried["installed"][extra]}}


def table(results: dict[str, Any]) -> str:
    """The outcome as Markdown."""
    lines = [
        "| Python | outcome | extras installed | not installed | tests passed | skipped |",
        "|---|---|---|---|---|---|",
    ]
    for version in PYTHONS:
        result = results["pythons"].get(version, {"python": version, "outcome": "never checked"})
        extras = {name: said for name, said in result.get("installed", {}).items() if name != "core"}
        there = ", ".join(name for name, said in extras.items() if said == "installed") or "-"
        absent = ", ".join(name for name, said in extras.items() if said != "installed") or "-"
        tests = result.get("tests", {})
        counts = f"{tests.get('passed', '-')} | {tests.get('skipped', '-')}"
        lines.append(f"| {result['python']} | {result['outcome']} | {there} | {absent} | {counts} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Checks the Pythons named (all that the metadata names) and writes the outcome; 1 unless all passed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.pythons", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("pythons", nargs="*", default=PYTHONS, help=f"of {', '.join(PYTHONS)}")
    parser.add_argument("--add", choices=EXTRAS, help="try this extra alone, and add it to the last outcome")
    given = parser.parse_args(arguments)
    results = {}
    with tempfile.TemporaryDirectory() as work:
        for version in given.pythons:
            results[version] = (
                added(version, Path(work), given.add) if given.add else check(version, Path(work))
            )
            _keep(version, results[version])
    return int(any(result["outcome"] != "passed" for result in results.values()))


def _keep(version: str, result: dict[str, Any]) -> None:
    """Puts one outcome into the file and the page's table, beside those of the other Pythons."""
    kept = json.loads(RESULT.read_text())["pythons"] if RESULT.is_file() else {}
    kept[version] = {"finished": datetime.now(UTC).isoformat(timespec="seconds"), **result}
    outcome = {
        "system": platform.platform(),
        "pythons": {name: kept[name] for name in PYTHONS if name in kept},
    }
    RESULT.write_text(json.dumps(outcome, indent=1) + "\n")
    PAGE.write_text(MARK.sub(lambda _: table(outcome), PAGE.read_text()))
    print(table(outcome))


def _is(interpreter: Path, version: str) -> bool:
    """A shim may stand in for a Python that is not there."""
    try:
        ran = subprocess.run(
            [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return ran.stdout.strip() == version


def _environment(interpreter: Path, home: Path) -> Path:
    """A fresh environment, and a folder with tests but without our packages."""
    subprocess.run([interpreter, "-m", "venv", home / "env"], check=True, capture_output=True)
    for folder in ("tests", "examples", "docs", "benchmarks"):
        shutil.copytree(
            ROOT / folder, home / "project" / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ("pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy(ROOT / file, home / "project")
    return home / "env" / "bin" / "python"


def _install(python: Path, home: Path, extra: str) -> str:
    """Installs the wheel with an extra; `installed`, or what pip said last."""
    wheels = home / "wheels"
    if not wheels.is_dir():
        ran = _ran([python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, ROOT], home)
        if ran.returncode:
            return _said(ran)
    wheel = next(wheels.glob("*.whl"))
    wanted = [f"secagg-toolkit[{extra}] @ {wheel.as_uri()}"] if extra else [str(wheel), "pytest"]
    if extra == "torch":
        wanted.insert(0, "torch")
    # pyhocon, which nvflare needs, is published as source alone: Python without anything to compile
    binary = ["--only-binary", ":all:", "--no-binary", "pyhocon"]
    command = [python, "-m", "pip", "install", "--quiet", *binary]
    ran = _ran([*command, "--constraint", ROOT / "constraints.txt", *wanted], home)
    return _said(ran) if ran.returncode else "installed"


def _commands(python: Path, home: Path, there: set[str], report: Report) -> dict[str, int]:
    """Command line -> exit code; a command with --json must print one JSON object."""
    ended = {}
    for command, needed in COMMANDS.items():
        if not there.issuperset(needed):
            continue
        ran = _ran([python.parent / "secagg", *command], home)
        code = ran.returncode
        if "--json" in command and not _one_object(ran.stdout):
            code = code or 1
        ended[" ".join(("secagg", *command))] = code
        report(f"{' '.join(command)}: exit {code} {'' if code == 0 else ran.stderr[-2000:]}")
    return ended


def _tests(python: Path, home: Path, there: set[str], report: Report) -> dict[str, Any]:
    """The tests that what is installed allows: how many passed, failed and were skipped."""
    files = [file for needed, listed in TESTS.items() if there.issuperset(needed) for file in listed]
    if not files:
        return {"files": [], "exit": 1}
    kept = home / "results.json"
    command = [python, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *files]
    ran = _ran(command, home, SECAGG_TEST_RESULTS=str(kept))
    report(ran.stdout[-3000:])
    listed = list(json.loads(kept.read_text()).values()) if kept.is_file() else []
    counts = {
        kind: sum(test["outcome"] == kind for test in listed) for kind in ("passed", "failed", "skipped")
    }
    return {"files": files, **counts, "exit": ran.returncode}


def _one_object(printed: str) -> bool:
    try:
        return isinstance(json.loads(printed), dict)
    except ValueError:
        return False


def _ran(command: list[Any], home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs where our packages are not, and lets no variable name them."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=home / "project",
        capture_output=True,
        text=True,
        check=False,
        env={**kept, "SECAGG_OFFLINE": "1", **environment},
    )


def _said(ran: subprocess.CompletedProcess[str]) -> str:
    if "Failed to establish a new connection" in ran.stderr or "Temporary failure in name" in ran.stderr:
        return UNREACHABLE
    lines = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")] or [
        f"exit {ran.returncode}"
    ]
    return lines[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
