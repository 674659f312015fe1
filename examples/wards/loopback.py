"""A provisioned deployment on this machine: a server and three sites with certificates of their own, over mutual TLS.

    python examples/wards/loopback.py FOLDER

What belongs here: what a test or a demo needs. In production NVFlare's dashboard or `nvflare provision` makes the kits,
and every party starts its own.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session
from nvflare.job_config.api import FedJob

from fl.nvflare import allow_classes, deny_code, private_job

ADMIN, PROJECT = "admin@ward.example", "wards"
BUILDERS: list[dict[str, Any]] = [
    {
        "path": "nvflare.lighter.impl.workspace.WorkspaceBuilder",
        "args": {"template_file": ["master_template.yml"]},
    },
    {"path": "nvflare.lighter.impl.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
    {"path": "nvflare.lighter.impl.cert.CertBuilder"},
    {"path": "nvflare.lighter.impl.signature.SignatureBuilder"},
]


def provision(folder: Path, sites: Sequence[str], port: int) -> Path:
    """Make every party's startup kit, and return the folder that holds them."""
    server = {
        "name": "server",
        "type": "server",
        "org": "ward",
        "fed_learn_port": port,
        "default_host": "localhost",
    }
    admin = {"name": ADMIN, "type": "admin", "org": "ward", "role": "project_admin"}
    clients = [{"name": site, "type": "client", "org": "ward"} for site in sites]
    project = {
        "api_version": 3,
        "name": PROJECT,
        "participants": [server, admin, *clients],
        "builders": BUILDERS,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.yml").write_text(yaml.safe_dump(project))
    command = [sys.executable, "-m", "nvflare.cli", "provision", "-p", "project.yml", "-w", "kits"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment(folder))
    return folder / "kits" / PROJECT / "prod_00"


def environment(folder: Path) -> dict[str, str]:
    """This Python first, the wards' package and the toolkit importable, and nothing written to anybody's home."""
    found = [str(Path(__file__).parent), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, found)),
    }


def admit(kit: Path, federation: str) -> None:
    """What the operator of a party does once: allow the toolkit's classes and no job's code, and name the federation
    that may run.
    """
    allow_classes(kit)
    deny_code(kit)
    own = kit / "local" / "secagg"
    own.mkdir(mode=0o700, exist_ok=True)
    (own / "site.toml").write_text(f'federations = ["{federation}"]\n\n[policy]\nmin_cohort = 3\n')


@contextmanager
def started(folder: Path, kits: Path, parties: Sequence[str]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start parties, each in a process group of its own, and end these groups in the end."""
    running = {name: start(folder, kits / name) for name in parties}
    try:
        yield running
    finally:
        for process in running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def start(folder: Path, kit: Path) -> subprocess.Popen[bytes]:
    """Start one party's kit; its output goes to `console.txt` in it."""
    command = ["bash", str(kit / "startup" / "sub_start.sh"), "--once"]
    with (kit / "console.txt").open("ab") as console:
        return subprocess.Popen(
            command, stdout=console, stderr=subprocess.STDOUT, env=environment(folder), start_new_session=True
        )


def session(kits: Path, seconds: float = 120.0) -> Session:
    """Log in as the admin, once the server listens."""
    ends = time.monotonic() + seconds
    while True:
        try:
            return new_secure_session(ADMIN, str(kits / ADMIN), timeout=20.0)
        except Exception:
            if time.monotonic() > ends:
                raise
            time.sleep(1.0)


def wait_for(admin: Session, sites: int, seconds: float = 120.0) -> None:
    """Wait until so many sites have joined."""
    ends = time.monotonic() + seconds
    while len(admin.get_system_info().client_info) < sites:
        if time.monotonic() > ends:
            raise TimeoutError(f"fewer than {sites} sites joined within {seconds:g} s")
        time.sleep(1.0)


def submit(admin: Session, folder: Path, job: FedJob) -> str:
    """Write a job, submit it and return its id."""
    job.export_job(str(folder / "jobs"))
    return str(admin.submit_job(str(folder / "jobs" / job.name)))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(folder: Path) -> None:
    sites = ["site-1", "site-2", "site-3"]
    kits = provision(folder, sites, free_port())
    for name in ("server", *sites):
        admit(kits / name, "ward:federation")
    with started(folder, kits, ["server", *sites]):
        admin = session(kits)
        wait_for(admin, len(sites))
        number = submit(admin, folder, private_job("wards", "ward:federation", 2, clients=sites, timeout=120))
        print(admin.wait_for_job(number, timeout=600).get("status"))
        admin.close()
    print(kits / "server" / "local" / "secagg" / "runs" / "run")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
