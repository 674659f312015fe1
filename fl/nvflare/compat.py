"""What touches more of nvflare than the classes that its documentation names, in one place.

What belongs here: what tells a simulation, where a party's own files lie, what a site allows. What
does not: anything else. Written against 2.9, where the extra `nvflare` ends.
"""

import json
import os
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.private.fed.simulator.simulator_const import SimulatorConstants

from protocols.errors import Misuse

ALLOW_LIST, RESOURCES = "class_allow_list", ("resources.json", "resources.json.default")
AUTHORIZATION = ("authorization.json", "authorization.json.default")
RIGHTS = ("submit_job", "clone_job", "manage_job", "download_job", "view", "operate", "shell_commands")
"""What a role has that may do anything, but code of its own."""
OWN_FILES = "secagg"


def in_simulation(context: FLContext) -> bool:
    """Whether this process plays a client of NVFlare's simulator. Its own engine says so; no message can."""
    return bool(context.get_prop(FLContextKey.SIMULATE_MODE, False))


def simulates(context: FLContext) -> bool:
    """Whether this server's job runs in NVFlare's simulator, which gives every job the same id."""
    return bool(context.get_job_id() == SimulatorConstants.JOB_NAME)


def own_folder(context: FLContext, simulated: bool) -> Path:
    """Return where this party's own files lie: beside the site's other local settings, which no job writes; in a
    simulation, in the run's folder.
    """
    workspace = context.get_engine().get_workspace()
    root = workspace.get_run_dir(context.get_job_id()) if simulated else workspace.get_site_config_dir()
    return Path(root) / OWN_FILES


def allow(local: Path, package: str) -> None:
    """Add a package to the classes that jobs may name at this site. local: its `local` folder."""
    path, found = _settings(local, RESOURCES)
    found.setdefault("format_version", 2)
    allowed = found.setdefault(ALLOW_LIST, list(DEFAULT_CLASS_ALLOW_LIST))
    if package not in allowed:
        allowed.append(package)
        _write(path, found)


def deny(local: Path, right: str) -> None:
    """Take a right from every role at this site. local: its `local` folder. Raises Misuse where it has no permissions:
    NVFlare then permits nothing.
    """
    _, found = _settings(local, AUTHORIZATION)
    if not found:
        raise Misuse(f"expected {AUTHORIZATION[1]} in {local}, a startup kit's folder")
    for role, rights in found["permissions"].items():
        named = rights if isinstance(rights, dict) else dict.fromkeys(RIGHTS, rights)
        found["permissions"][role] = {**named, right: "none"}
    _write(local / AUTHORIZATION[0], found)


def _settings(local: Path, names: tuple[str, str]) -> tuple[Path, dict[str, Any]]:
    """Return what a site says, else what its kit came with, and where it stands."""
    path = next((local / name for name in names if (local / name).exists()), local / names[1])
    return path, json.loads(path.read_text()) if path.exists() else {}


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(settings, indent=2) + "\n")
    os.replace(fresh, path)
