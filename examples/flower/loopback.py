"""A real Flower deployment on this machine's loopback: a SuperLink with TLS and authenticated SuperNodes.

What belongs here: starting, pausing, killing, restarting and stopping the processes of a test or a demo. What does not:
production (each party starts its own), apps, protocols. Of flwr, its commands are run and the SuperLink's log is read.
"""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from examples.flower.keys import Deployment, NodeFiles, deployment_in, make_deployment, write_site
from fl.network.site import CONFIG_KEY
from protocols.errors import Misuse, SecAggError

HOST = "127.0.0.1"
CONNECTION = "loopback"
START_SECONDS = 180.0
_JOINED = "SuperNode ID: "
"""What a SuperNode logs once its SuperLink took it."""
_PRCTL = ctypes.CDLL(None).prctl
_SET_PARENT_DEATH_SIGNAL = 1
_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "",
}


class DeploymentError(SecAggError):
    """A process of the deployment did not come up, or ended by itself; the message names its log."""


@dataclass
class Process:
    """One long-running command in its own process group, with its output in a log file."""

    name: str
    command: list[str]
    log: Path
    environment: dict[str, str]
    popen: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def start(self) -> None:
        """Start it (again)."""
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(  # our own command line, no shell
                self.command,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
                preexec_fn=end_with_parent,  # two system calls, no lock is taken
            )

    @property
    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def family(self) -> list[int]:
        """Return the ids of the command and of every process under it, its own first."""
        if not self.alive or self.popen is None:
            return []
        return [self.popen.pid, *descendants(self.popen.pid)]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command and to every process under it."""
        for pid in self.family():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL all of it and wait."""
        self.signal(signal.SIGKILL)
        if self.popen is not None:
            self.popen.wait(10)

    def stop(self, seconds: float = 5.0) -> None:
        """SIGTERM, then SIGKILL after `seconds` for whatever is left; a paused process is woken first."""
        if self.popen is None:
            return
        left = self.family()
        self.signal(signal.SIGCONT)
        with suppress(ProcessLookupError):
            self.popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(seconds)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.popen.wait(10)

    def tail(self, lines: int = 15) -> str:
        """Return the end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def end_with_parent() -> None:
    """Have the kernel end this process when the one that started it is gone, killed or not (Linux, prctl)."""
    _PRCTL(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def descendants(root: int) -> list[int]:
    """Return the ids of all processes under `root`, from /proc (Linux)."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(parents.get(root, []))
    for pid in found:
        found.extend(parents.get(pid, []))
    return found


def command_of(pid: int) -> str:
    """Return a process's command line, empty if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def free_port() -> int:
    """Return a port of the loopback that was free just now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def run_has_ended(superlink_log: str, run_id: int) -> bool:
    """Return whether the SuperLink's log says that a run's ServerApp has ended, however it did."""
    return re.search(rf"(Finished|Failed|Stopped) task \d+ of run {run_id}\b", superlink_log) is not None


class Loopback:
    """A deployment in `folder`: `with Loopback(folder, nodes=3) as it: it.run(app)`. Leaving stops all it started.

    node_config: per node name, what the SuperNode's --node-config says besides `partition-id`, `num-partitions` and
    `site` (the folder with this node's own files). Raises DeploymentError if something does not come up.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int,
        *,
        policy: Mapping[str, Any] | None = None,
        node_config: Callable[[NodeFiles], Mapping[str, str | int | float]] | None = None,
        path: tuple[Path, ...] = (),
    ) -> None:
        self.folder = folder
        keys = folder / "keys"  # a deployment that is there goes on, with a SuperLink that knows of nothing
        known = (keys / "roster.json").exists()
        self.files: Deployment = deployment_in(keys) if known else make_deployment(keys, nodes)
        (folder / "superlink.db").unlink(missing_ok=True)
        self.port = free_port()
        self._node_config = node_config
        for node in self.files.nodes:
            write_site(self.files, node, policy or {})
        self.environment = self._make_environment(path)
        self.superlink = self._process("superlink", *self._superlink_command())
        self.nodes = {
            node.name: self._process(node.name, *self._supernode_command(i, node))
            for i, node in enumerate(self.files.nodes)
        }

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # also an interrupt: whatever has started is stopped
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the SuperLink, register the nodes' keys, start the SuperNodes."""
        self._write_connection()
        self.superlink.start()
        self.wait_for_superlink()
        # each is a process that takes seconds to load Flower
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._register, self.files.nodes))
        for process in self.nodes.values():
            process.start()

    def _register(self, node: NodeFiles) -> None:
        self.flwr("supernode", "register", str(node.auth_public), CONNECTION)

    def restart(self, name: str, seconds: float = 2 * START_SECONDS) -> None:
        """Start a SuperNode that was killed, again and again until its SuperLink takes it: for a minute that holds the
        old session, and turns the new one away. Raises DeploymentError after `seconds`.
        """
        node, deadline = self.nodes[name], time.monotonic() + seconds
        told = node.log.read_text(errors="replace").count(_JOINED)
        while True:
            node.start()
            while node.alive and time.monotonic() < deadline:
                if node.log.read_text(errors="replace").count(_JOINED) > told:
                    return
                time.sleep(0.2)
            if time.monotonic() > deadline:
                raise DeploymentError(f"{name} was turned away for {seconds:g} s:\n{node.tail()}")
            time.sleep(8.0)  # an attempt takes the processor seconds of a round's work on a node

    def wait_for_superlink(self) -> None:
        """Wait until the SuperLink accepts connections."""

        def ready() -> bool:
            with suppress(OSError), socket.create_connection((HOST, self.port), timeout=0.5):
                return True
            return False

        self._wait(ready, self.superlink)

    def stop(self) -> None:
        """Stop everything that was started, whatever state it is in."""
        with ThreadPoolExecutor() as pool:  # each takes its time to say goodbye to the SuperLink
            list(pool.map(lambda node: node.stop(3.0), self.nodes.values()))
        self.superlink.stop(3.0)

    def submit(self, app: Path, config: Mapping[str, Any] | None = None) -> int:
        """Submit the app in folder `app` and return its run id."""
        command = ["run", str(app), CONNECTION, "--format", "json"]
        if config:
            pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
            command += ["--run-config", pairs]
        return int(_last_json(self.flwr(*command))["run-id"])

    def serverapps(self) -> list[int]:
        """Return the process ids of the ServerApps that run now."""
        return [pid for pid in self.superlink.family() if "flwr-serverapp" in command_of(pid)]

    def status(self, run_id: int) -> str:
        """Return the run's status as Flower words it, such as "running" or "finished:completed"."""
        listed = _last_json(self.flwr("list", CONNECTION, "--run-id", str(run_id), "--format", "json"))
        return str(listed["runs"][0]["status"])

    def ended(self, run_id: int) -> bool:
        """Return whether a run's ServerApp has ended, by the SuperLink's log: asking `flwr list` costs seconds."""
        return run_has_ended(self.superlink.log.read_text(errors="replace"), run_id)

    def wait(self, run_id: int, seconds: float) -> str:
        """Wait for the end of a run and return its status. Raises DeploymentError after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.superlink.alive:
                raise DeploymentError(f"the SuperLink ended:\n{self.superlink.tail()}")
            if self.ended(run_id):
                return self.status(run_id)
            time.sleep(0.2)
        raise DeploymentError(f"run {run_id} did not end in {seconds:g} s:\n{self.superlink.tail(30)}")

    def logs(self, run_id: int) -> str:
        """Return what the ServerApp of a run printed."""
        return self.flwr("log", str(run_id), CONNECTION, "--show")

    def flwr(self, *arguments: str) -> str:
        """Run the `flwr` command and return its output. Raises DeploymentError with what it said if it fails."""
        done = subprocess.run(  # the flwr command beside this Python, no shell
            [_script("flwr"), *arguments], env=self.environment, capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            raise DeploymentError(
                f"flwr {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}"
            )
        return done.stdout

    def _process(self, name: str, *command: str) -> Process:
        return Process(name, list(command), self.folder / f"{name}.log", self.environment)

    def _superlink_command(self) -> list[str]:
        tls = self.files.tls
        certificates = [
            "--ssl-ca-certfile",
            tls.ca,
            "--ssl-certfile",
            tls.certificate,
            "--ssl-keyfile",
            tls.key,
        ]
        command = [
            _script("flower-superlink"),
            "--host",
            HOST,
            "--port",
            self.port,
            "--enable-supernode-auth",
        ]
        command += ["--database", self.folder / "superlink.db", "--disable-runtime-dependency-installation"]
        return [str(word) for word in (*command, *certificates)]

    def _supernode_command(self, index: int, node: NodeFiles) -> list[str]:
        site = node.identity.parent
        config: dict[str, Any] = {
            "partition-id": index,
            "num-partitions": len(self.files.nodes),
            CONFIG_KEY: str(site.resolve()),
        }
        config.update(self._node_config(node) if self._node_config else {})
        command = [_script("flower-supernode"), "--superlink", f"{HOST}:{self.port}", "--port", free_port()]
        command += ["--root-certificates", self.files.tls.ca, "--auth-supernode-private-key", node.auth_key]
        command += ["--node-config", " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())]
        return [str(word) for word in command]

    def _make_environment(self, path: tuple[Path, ...]) -> dict[str, str]:
        environment = {**os.environ, **_ENVIRONMENT, "FLWR_HOME": str(self.folder / "flwr-home")}
        environment["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ.get("PATH", "")
        known = [str(p) for p in (*path, Path(__file__).parents[2])]
        environment["PYTHONPATH"] = os.pathsep.join(known)
        return environment

    def _write_connection(self) -> None:
        home = self.folder / "flwr-home"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = ["[superlink]", f'default = "{CONNECTION}"', f"[superlink.{CONNECTION}]"]
        lines += [
            f'address = "{HOST}:{self.port}"',
            f"root-certificates = {json.dumps(str(self.files.tls.ca))}",
        ]
        (home / "config.toml").write_text("\n".join(lines) + "\n")

    def _wait(self, ready: Callable[[], bool], process: Process, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if not process.alive or time.monotonic() > deadline:
                raise DeploymentError(f"{process.name} did not come up:\n{process.tail()}")
            time.sleep(0.1)


def _script(name: str) -> str:
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise Misuse(f"{name} is not installed beside {sys.executable}: pip install 'secagg-toolkit[flower]'")
    return str(path)


def _last_json(text: str) -> dict[str, Any]:
    start = text.find("{")
    try:
        found = json.loads(text[start:])
    except ValueError:
        raise DeploymentError(f"expected a JSON object from flwr, got: {text[-500:]}") from None
    return dict(found)
