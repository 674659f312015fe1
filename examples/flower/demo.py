"""`make flower-demo`: a whole deployment on this machine, from keys to the closing table, and nothing left running.
What it wrote stays below `runs`.

A SuperLink with TLS and node authentication and four SuperNodes on the loopback, each with its own files; the app
beside this file is submitted to them as `flwr run` does it.
"""

import signal
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

APP = Path(__file__).resolve().parent
# the app lies beside this script, the package `examples` above it
sys.path[:0] = [str(APP), str(APP.parents[1])]

from digits_app.federation import SITES, make_federation  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import Progress  # noqa: E402

from examples.flower.loopback import Loopback  # noqa: E402
from fl import checkpoint  # noqa: E402
from fl.cli.run_view import print_closing, round_head, round_line  # noqa: E402
from fl.run_result import Result  # noqa: E402
from protocols.errors import SecAggError  # noqa: E402
from protocols.record import FILE_NAME, verify_record  # noqa: E402
from protocols.statement import Statement  # noqa: E402

ROUNDS = 2  # the first sets keys up, in three trips; the second takes two, as all that follow would
STAGE_SECONDS = (
    600.0  # only a node that is gone costs it; a busy machine needs minutes to start four processes
)
RUN_SECONDS = 3600.0
TELL_SECONDS = 15.0
"""Where there is no terminal to show a bar on."""


@dataclass
class Shown:
    """What the closing table asks of a configuration."""

    clients: int
    privacy: tuple[str, ...]
    output: str


def main() -> None:
    # leaving stops everything, however it is asked for
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console, began = Console(), time.monotonic()
    folder = Path("runs", f"{datetime.now():flower-demo-%Y%m%d-%H%M%S}").resolve()
    run = folder / "run"
    folder.mkdir(mode=0o700, parents=True)
    console.print("starting a SuperLink (TLS, node authentication) and four SuperNodes on the loopback")
    with Loopback(folder, len(SITES), policy={"min_cohort": 3, "threat": "malicious"}) as deployment:
        files = deployment.files
        config = {
            "num-server-rounds": ROUNDS,
            "output": str(run),
            "secagg-roster": str(files.roster),
            "secagg-authority": files.authority_key.hex(),
            "secagg-identity": str(files.server_identity),
            "secagg-timeout": STAGE_SECONDS,
        }
        run_id = deployment.submit(APP, config)
        console.print(f"the app is submitted; {ROUNDS} rounds of three and two trips follow")
        follow(console, deployment, run_id, run)
        kept = (folder / "keys" / SITES[0] / "kept-head.txt").read_text().strip()
        verdict = verify_record(run / FILE_NAME, server_key(files.folder), kept)
        console.print(f"run record: {verdict.level}, against the head that {SITES[0]} kept")
    result = load(run)
    with console.status("the same without privacy layers, in memory"):
        plain = make_federation(privacy=[]).fit(ROUNDS)
    shown = Shown(len(SITES), ("secagg+: malicious model, reused keys",), str(run))
    print_closing(console, shown, result, plain, None, run)
    waiting, took = (
        sum(entry.seconds.get("waiting", 0.0) for entry in result.history),
        time.monotonic() - began,
    )
    console.print(f"{took:.0f} s, of which {waiting:.0f} went to processes that start, transport and polling")


def follow(console: Console, deployment: Loopback, run_id: int, run: Path) -> None:
    """Show each round when it is over, until the run ends."""
    shown, told = 0, time.monotonic()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("rounds", total=ROUNDS)
        deadline = time.monotonic() + RUN_SECONDS
        while shown < ROUNDS:
            history = checkpoint.load_run(run).history if checkpoint.begun(run) else []
            if history and not shown:
                bar.console.print(round_head(), style="bold", highlight=False)
            for result in history[shown:]:
                bar.console.print(round_line(result), highlight=False)
            shown = len(history)
            bar.update(task, completed=shown)
            if not console.is_terminal and time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                console.print(f"{shown} of {ROUNDS} rounds are over; nodes are asked, trip by trip")
            if time.monotonic() > deadline or deployment.ended(run_id):
                break
            time.sleep(0.5)
    status = deployment.wait(run_id, 120)
    if status != "finished:completed":
        raise SecAggError(f"the run ended as {status}:\n{deployment.logs(run_id)[-3000:]}")


def load(run: Path) -> Result:
    """Read the run back from its files."""
    kept = checkpoint.load_run(run)
    statement = Statement.from_json(kept.statement or {})
    return Result(kept.model, kept.history, statement, [entry.survivors for entry in kept.history])


def server_key(keys: Path) -> bytes:
    return bytes.fromhex((keys / "server" / "server.pub").read_text().strip())


if __name__ == "__main__":
    main()
