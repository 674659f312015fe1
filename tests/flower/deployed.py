"""A federation of real processes that a test can hurt: started, watched, killed, paused, restarted, always stopped."""

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from examples.flower.loopback import Loopback

CALM_START_SECONDS = (
    12.0  # of a deployment on two idle cores; a busy machine gets as much more time everywhere
)
APP = Path(__file__).parent / "app"


class Deployed:
    """A loopback deployment of the fault app. seconds: the server's timeout per trip."""

    def __init__(
        self, folder: Path, nodes: int = 3, *, privacy: str = "fresh", seconds: float = 20.0, **named: Any
    ) -> None:
        self.folder = folder
        self.it = Loopback(folder, nodes, **named)
        self.privacy, self.seconds = privacy, seconds
        self.run_folder = folder / "run"
        self.run: int | None = None
        self.patience = 1.0

    def __enter__(self) -> "Deployed":
        began = time.monotonic()
        self.it.__enter__()
        self.patience = max(1.0, (time.monotonic() - began) / CALM_START_SECONDS)
        return self

    def __exit__(self, *details: object) -> None:
        if details[0] is not None and self.run is not None:
            print(self.it.logs(self.run)[-6000:])
        self.it.__exit__(*details)

    def submit(self, rounds: int, seconds: float | None = None, size: int = 64, app: Path = APP) -> int:
        """Submit the app. seconds: another timeout per trip than the usual one. size: values of the model.
        app: its folder, or its name on a Hub (`@publisher/name`).
        """
        files = self.it.files
        self.run = self.it.submit(
            app,
            {
                "folder": str(self.run_folder),
                "roster": str(files.roster),
                "authority": files.authority_key.hex(),
                "identity": str(files.server_identity),
                "rounds": rounds,
                "size": size,
                "nodes": len(files.nodes) - 1,
                "seconds": (seconds or self.seconds) * min(self.patience, 10.0),
                "privacy": self.privacy,
            },
        )
        return self.run

    def site(self, name: str) -> Path:
        return self.folder / "keys" / name

    def hold(self, name: str, moment: str) -> None:
        """The node is to stop at `moment` the next time."""
        (self.site(name) / f"at-{moment}").touch()

    def reached(self, name: str, moment: str, seconds: float = 600.0) -> None:
        """Wait until the node stands there."""
        until(
            (self.site(name) / f"reached-{moment}").exists,
            seconds * self.patience,
            f"{name} reaches {moment}",
        )

    def release(self, name: str, moment: str) -> None:
        (self.site(name) / f"at-{moment}").unlink(missing_ok=True)
        (self.site(name) / f"reached-{moment}").unlink(missing_ok=True)

    def rounds_done(self) -> int:
        path = self.run_folder / "metrics.jsonl"
        return len(path.read_bytes().splitlines()) if path.exists() else 0

    def wait_rounds(self, count: int, seconds: float = 600.0) -> None:
        until(lambda: self.rounds_done() >= count, seconds * self.patience, f"round {count} is over")

    def lines(self) -> list[dict[str, Any]]:
        """Return what metrics.jsonl says of each round."""
        return [json.loads(line) for line in (self.run_folder / "metrics.jsonl").read_text().splitlines()]

    def reports(self) -> list[dict[str, Any]]:
        """Return the reports of the last ServerApp that ended by itself."""
        return list(json.loads((self.run_folder / "reports.json").read_text()))

    def times_asked(self, name: str, stage: str) -> int:
        log = self.site(name) / "stages.log"
        return log.read_text().split().count(stage) if log.exists() else 0


def free_again(port: int) -> bool:
    """Return whether nobody accepts connections there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return False
    return True


def until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.1)
