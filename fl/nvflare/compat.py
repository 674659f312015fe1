"""What touches more of nvflare than the classes that its documentation names, in one place.

What belongs here: what tells a simulation, where a party's own files lie, the list of classes that a site allows. What
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

ALLOW_LIST, RESOURCES = "class_allow_list", ("resources.json", "resources.json.default")
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
    path = next((local / name for name in RESOURCES if (local / name).exists()), local / RESOURCES[-1])
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"format_version": 2}
    allowed = found.setdefault(ALLOW_LIST, list(DEFAULT_CLASS_ALLOW_LIST))
    if package not in allowed:
        allowed.append(package)
        local.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(json.dumps(found, indent=2) + "\n")
        os.replace(fresh, path)
