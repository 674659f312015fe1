"""`secagg doctor`: what is installed, what hides our names, which data is at hand.

Belongs here: looking and telling. Nothing is changed, and no heavy library is imported: versions are read
from metadata.
"""

import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from fl.cli import output
from fl.data.catalogue import DataSetStatus, entries
from protocols.extras import EXTRAS, missing

OUR_NAMES = ("secagg", "dp", "he", "protocols", "fl")
CORE = ("cryptography", "dp-accounting", "numba", "numpy", "rich", "scipy", "tomli-w", "typer")
DISTRIBUTIONS = {"sklearn": "scikit-learn", "backports": "backports.zstd"}
"""Import name -> name of the distribution, where they differ."""


@dataclass(frozen=True)
class Collision:
    """Something of the user's with a name of ours. `hides_ours`: Python, started there, would import it
    in place of ours; a folder without `__init__.py` does not, until it gets one.
    """

    name: str
    path: str
    hides_ours: bool


@dataclass(frozen=True)
class Extra:
    """An extra: the versions of its modules, None where one is missing."""

    installed: bool
    missing: list[str]
    versions: dict[str, str | None]


@dataclass(frozen=True)
class Diagnosis:
    """Everything that the command tells; the fields are the keys of the JSON object."""

    ok: bool
    problems: list[str]
    version: str | None
    python: str
    platform: str
    cpus: int | None
    location: str
    packages: dict[str, str | None]
    extras: dict[str, Extra]
    shadowed: list[Collision]
    data: list[DataSetStatus]


def doctor(
    data_dir: Annotated[
        Path | None, Option("--data-dir", help="Folder that is searched, and no other.", show_default=False)
    ] = None,
    as_json: output.JsonOption = False,
) -> None:
    """Tells versions, extras, names of ours that other folders hide, and which data is at hand."""
    report = examine(data_dir)
    if as_json:
        output.emit_json(asdict(report))
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(1)


def examine(data_dir: Path | None) -> Diagnosis:
    """Looks at the installation, the folder it is started in, and the places where data may be."""
    packages = {name: installed(name) for name in CORE}
    clashes = collisions(user_folders())
    absent = [
        f"{name} is not installed: pip install secagg-toolkit"
        for name, found in packages.items()
        if not found
    ]
    hidden = [
        f"{clash.path} hides our package {clash.name!r} from programs that start there: rename it."
        for clash in clashes
        if clash.hides_ours
    ]
    return Diagnosis(
        ok=not absent and not hidden,
        problems=absent + hidden,
        version=installed("secagg-toolkit"),
        python=platform.python_version(),
        platform=platform.platform(),
        cpus=os.cpu_count(),
        location=str(_home()),
        packages=packages,
        extras={extra: _extra(extra) for extra in EXTRAS},
        shadowed=clashes,
        data=entries(data_dir),
    )


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def user_folders() -> list[Path]:
    """Where Python looks before the installed packages: the folder it is started in, and PYTHONPATH."""
    extra = [Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return list(dict.fromkeys(folder.resolve() for folder in (Path.cwd(), *extra)))


def collisions(folders: list[Path]) -> list[Collision]:
    """Modules and folders in `folders` that have a name of ours and are not ours."""
    found = []
    for folder in folders:
        for name in OUR_NAMES:
            spec = PathFinder.find_spec(name, [str(folder)])
            if spec is None:
                continue
            ours = spec.origin is not None and Path(spec.origin).resolve() == _home() / name / "__init__.py"
            if not ours:
                where = spec.origin or str(folder / name)
                found.append(Collision(name, where, spec.origin is not None))
    return found


def _home() -> Path:
    """The folder that holds our packages."""
    return Path(__file__).resolve().parents[2]


def _extra(extra: str) -> Extra:
    absent = missing(extra)
    versions = {module: installed(DISTRIBUTIONS.get(module, module)) for module in EXTRAS[extra]}
    return Extra(not absent, absent, versions)


def _print(report: Diagnosis) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = output.stdout_console()
    console.print(
        f"secagg-toolkit {report.version or 'from a checkout'} in {report.location}", highlight=False
    )
    console.print(f"Python {report.python} ({sys.executable}) on {report.platform}", highlight=False)
    sections = {
        "package": {name: found or "missing" for name, found in report.packages.items()},
        "extra": {name: _extra_line(name, extra) for name, extra in report.extras.items()},
        "data set": {entry.name: entry.found or "not found" for entry in report.data},
    }
    for title, rows in sections.items():
        table = Table(title, "", box=None)
        for row in rows.items():
            table.add_row(*map(escape, row))
        console.print(table)
    for clash in report.shadowed:
        if not clash.hides_ours:
            console.print(
                f"{clash.path} would hide our {clash.name!r} if it had an __init__.py.", highlight=False
            )
    for problem in report.problems:
        console.print(f"Problem: {problem}", style="bold red", highlight=False, markup=False)
    console.print("All is well." if report.ok else "See the problems above.", highlight=False)


def _extra_line(name: str, extra: Extra) -> str:
    if extra.installed:
        return ", ".join(f"{module} {found}" for module, found in extra.versions.items())
    return f"missing {', '.join(extra.missing)}: pip install 'secagg-toolkit[{name}]'"
