"""The full matrix of faults on real processes. Slow: every fault costs its timeout, every message a process."""

import os
import signal
import subprocess
import sysconfig
from pathlib import Path

import pytest

from examples.flower.loopback import Process
from fl.flower.launcher import write_launcher
from fl.flower.nodes import make_node_key
from protocols.identity import Identity
from protocols.record import FILE_NAME, verify_record
from tests.flower.deployed import APP, Deployed, free_again, until

pytestmark = pytest.mark.slow

STAGES = ("advertise-keys", "share-keys", "masked-input", "unmask")


def finish(d: Deployed, again: int, seconds: float = 600.0, attempts: int = 3) -> None:
    """Wait for the run and check what every run must keep, whatever happened to it.

    A machine that got busier than at the start may lose rounds to the timeout; then the run goes on with a longer
    one, as its operator would let it.
    """
    assert d.it.wait(again, seconds * d.patience) == "finished:completed"
    verdict = verify_record(d.run_folder / FILE_NAME, Identity.load(d.it.files.server_identity).public)
    assert verdict.level == "signed"
    numbers = [e.body["number"] for e in verdict.entries if "number" in e.body]
    assert numbers == sorted(set(numbers))
    for line in d.lines():
        assert line["abandoned"] is not None or line["survivors"] >= 3
    if all(line["abandoned"] is not None for line in d.lines()):
        assert attempts > 1, [line["abandoned"] for line in d.lines()]
        d.patience *= 2
        finish(d, d.submit(rounds=d.rounds_done() + 1), seconds, attempts - 1)


@pytest.mark.parametrize("moment", [*STAGES, *(f"answered-{stage}" for stage in STAGES)])
def test_a_node_killed_before_or_after_any_stage(tmp_path: Path, moment: str) -> None:
    """`answered-...`: everything was saved, the answer had not left: it never answers that stage again."""
    with Deployed(tmp_path, nodes=4, seconds=30.0) as d:
        d.hold("site-2", moment)
        run = d.submit(rounds=2)
        d.reached("site-2", moment)
        stage = moment.removeprefix("answered-")
        asked = d.times_asked("site-2", stage)
        d.it.nodes["site-2"].kill()
        d.release("site-2", moment)
        d.it.restart("site-2")
        d.wait_rounds(1)
        finish(d, run)
        assert d.times_asked("site-2", stage) <= asked + 1


@pytest.mark.parametrize("moment", ["masked-input", "unmask"])
def test_a_node_paused_past_the_timeout(tmp_path: Path, moment: str) -> None:
    with Deployed(tmp_path, nodes=4, seconds=30.0) as d:
        d.hold("site-3", moment)
        run = d.submit(rounds=2)
        d.reached("site-3", moment)
        d.it.nodes["site-3"].signal(signal.SIGSTOP)
        d.wait_rounds(1)
        d.it.nodes["site-3"].signal(signal.SIGCONT)
        d.release("site-3", moment)
        finish(d, run)
        assert any(line["abandoned"] is None for line in d.lines())


def test_nodes_that_fail_answer_twice_or_have_a_wrong_identity(tmp_path: Path) -> None:
    with Deployed(tmp_path, nodes=5, seconds=30.0) as d:
        (d.site("site-1") / "fail-masked-input").touch()
        Identity.generate("site-2").save(d.site("site-2") / "site-2.key")
        (d.site("site-3") / "twice-masked-input").touch()
        run = d.submit(rounds=1)
        finish(d, run)
        (report,) = d.reports()
        assert "error 2" in report["refusals"]["site-1"]
        assert "not the key that the roster binds" in report["refusals"]["site-2"]
        assert report["survivors"] == ["site-3", "site-4", "site-5"]  # what came twice counts once
        assert "ProtocolViolation" in report["refusals"]["site-3"]


def test_a_supernode_with_an_unregistered_key_never_takes_part(tmp_path: Path) -> None:
    with Deployed(tmp_path, nodes=4, seconds=30.0) as d:
        key, _, _ = make_node_key("stranger", tmp_path / "stranger")
        honest = d.it.nodes["site-1"]
        command = [str(key) if word.endswith("site-1.auth") else word for word in honest.command]
        port = command.index("--port") + 1
        command[port] = str(int(command[port]) + 1)
        stranger = Process("stranger", command, tmp_path / "stranger.log", honest.environment)
        stranger.start()
        try:
            finish(d, d.submit(rounds=1))
        finally:
            stranger.stop()
        assert len(d.reports()[0]["asked"]) == 4
        assert "SuperNode ID" not in stranger.log.read_text(errors="replace")


@pytest.mark.parametrize("stage", ["share-keys", "masked-input", "unmask"])
def test_the_serverapp_killed_in_mid_round_and_started_again(tmp_path: Path, stage: str) -> None:
    with Deployed(tmp_path, nodes=4, seconds=30.0) as d:
        d.hold("site-4", stage)
        d.submit(rounds=2)
        d.reached("site-4", stage)
        for pid in d.it.serverapps():
            os.kill(pid, signal.SIGKILL)
        d.release("site-4", stage)
        finish(d, d.submit(rounds=2))
        first, *_ = d.lines()
        lost = "stopped after inputs had been asked for" in str(first["abandoned"])
        assert lost == (stage in ("masked-input", "unmask"))


def test_the_superlink_restarted_with_its_database(tmp_path: Path) -> None:
    with Deployed(tmp_path, nodes=4, seconds=30.0) as d:
        d.hold("site-1", "masked-input")
        d.submit(rounds=2)
        d.reached("site-1", "masked-input")
        d.it.superlink.kill()
        d.release("site-1", "masked-input")
        until(lambda: free_again(d.it.port), 60, "the port is free")
        d.it.superlink.start()
        d.it.wait_for_superlink()
        assert all(process.alive for process in d.it.nodes.values())
        again = d.submit(rounds=3)
        finish(d, again)


def test_nodes_that_pin_the_apps_code_run_no_other(tmp_path: Path) -> None:
    """Three sites have read this app; the fourth has read another one, and runs nothing of this one."""
    d = Deployed(tmp_path, nodes=4, seconds=30.0)
    bundles = [build(APP, tmp_path), build(Path(__file__).parents[2] / "examples" / "flower", tmp_path)]
    for name, process in d.it.nodes.items():
        launcher = write_launcher(tmp_path / f"bin-{name}", [bundles[name == "site-1"]])
        path = os.pathsep.join([str(launcher.parent), process.environment["PATH"]])
        process.environment = {**process.environment, "PATH": path}
    with d:
        finish(d, d.submit(rounds=1))
        (report,) = d.reports()
        assert report["survivors"] == ["site-2", "site-3", "site-4"]
        assert "pinned: this site runs apps that it has read" in report["refusals"]["site-1"]
        assert d.times_asked("site-1", "advertise-keys") == 0


def build(app: Path, folder: Path) -> Path:
    """Return the bundle that `flwr build` makes of an app."""
    place = folder / f"bundle-{app.name}"
    place.mkdir()
    flwr = Path(sysconfig.get_path("scripts")) / "flwr"
    environment = {**os.environ, "FLWR_HOME": str(place / "home"), "FLWR_TELEMETRY_ENABLED": "0"}
    subprocess.run([flwr, "build", "--app", app], cwd=place, env=environment, check=True, timeout=300)
    (bundle,) = place.glob("*.fab")
    return bundle
