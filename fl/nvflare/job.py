"""The job of a private federation, and what a site must allow before one runs there.

What does not belong here: the components that the job names.
"""

from collections.abc import Sequence
from pathlib import Path

from nvflare.job_config.api import FedJob

from fl.nvflare.compat import allow, deny
from fl.nvflare.controller import PrivateController
from fl.nvflare.executor import PrivateExecutor
from fl.nvflare.messages import TASK
from protocols.numbers import positive

PACKAGES = ["fl", "dp", "he", "secagg", "protocols"]
INTERVAL = 0.1


def private_job(
    name: str,
    federation: str,
    rounds: int,
    *,
    run: str = "run",
    clients: Sequence[str] = (),
    timeout: float = 600.0,
    interval: float = INTERVAL,
) -> FedJob:
    """Return a job of `rounds` rounds, ready for `SimEnv`, `PocEnv` or `export_job`. It carries no code.

    federation: "package.module:name", installed at every site. run: names what a job that is submitted again goes on
    with. clients: who takes part (default: every connected site); a job starts once all of these are there. timeout:
    seconds per trip. interval: seconds between a site's looks for its next task (NVFlare's own default is 2).
    """
    job = FedJob(name=name, min_clients=max(1, len(clients)))
    job.set_app_packages(PACKAGES)
    job.to_server(PrivateController(federation, rounds, run, timeout))
    job.to_server({"server": {"task_request_interval": positive("interval", interval)}})
    for client in clients:
        job.to(PrivateExecutor(federation), client, tasks=[TASK])
    if not clients:
        job.to_clients(PrivateExecutor(federation), tasks=[TASK])
    return job


def allow_classes(workspace: Path | str) -> None:
    """Let jobs at this site name the toolkit's components. workspace: the site's, or `SimEnv`'s for one job
    (`workspace_root`/job name).
    """
    allow(Path(workspace) / "local", "fl.nvflare.")


def deny_code(workspace: Path | str) -> None:
    """Let no role submit jobs with code of their own (`byoc`) to this site: `allow_classes` does not bind these.
    workspace: the site's, its startup kit. Raises Misuse for another folder.
    """
    deny(Path(workspace) / "local", "byoc")
