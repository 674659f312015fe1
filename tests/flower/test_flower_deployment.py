"""One federation of real processes under TLS and node authentication, with one kill, one pause and one restart."""

import os
import signal
from pathlib import Path

import numpy as np

from fl.flower.files import MODEL
from fl.round.run_files import CHECKPOINT, METRICS, STATEMENT
from protocols.identity import Identity
from protocols.record import FILE_NAME, check_files, verify_record
from tests.flower.deployed import Deployed


def test_a_federation_survives_a_kill_a_pause_and_a_restart(tmp_path: Path) -> None:
    with Deployed(tmp_path, nodes=4, privacy="reuse", seconds=8.0) as d:
        every = [*d.it.nodes.values(), d.it.superlink]
        d.hold("site-1", "masked-input")
        d.submit(rounds=20)

        d.reached("site-1", "masked-input")  # killed before its input leaves; the others go on
        d.it.nodes["site-1"].kill()
        d.release("site-1", "masked-input")
        d.hold("site-2", "unmask")
        d.it.restart("site-1")

        d.reached("site-2", "unmask")  # paused past the timeout, then woken
        done = d.rounds_done()
        d.it.nodes["site-2"].signal(signal.SIGSTOP)
        d.wait_rounds(done + 1)
        d.it.nodes["site-2"].signal(signal.SIGCONT)
        d.release("site-2", "unmask")

        # the ServerApp is killed in the middle of a round, and started again
        d.hold("site-3", "masked-input")
        d.reached("site-3", "masked-input")
        for pid in d.it.serverapps():
            os.kill(pid, signal.SIGKILL)
        d.release("site-3", "masked-input")
        done = d.rounds_done()
        again = d.submit(rounds=done + 2, seconds=60.0)  # the one that was interrupted is lost
        assert d.it.wait(again, 240 * d.patience) == "finished:completed"

        identity = Identity.load(d.it.files.server_identity)
        kept = (d.site("site-3") / "kept-head.txt").read_text().strip()
        verdict = verify_record(d.run_folder / FILE_NAME, identity.public, kept)
        assert verdict.level == "verified"
        expected = tuple(sorted((CHECKPOINT, METRICS, MODEL, STATEMENT)))
        assert check_files(verdict, d.run_folder) == expected
        lines = d.lines()
        assert len(lines) == done + 2
        assert "stopped after inputs had been asked for" in lines[-2]["abandoned"]
        assert lines[-1]["abandoned"] is None  # nobody hurts the last round
        for line in lines:
            assert line["abandoned"] is not None or line["survivors"] >= 2
        with np.load(d.run_folder / "model.npz", allow_pickle=False) as model:
            assert np.isfinite(model["weight"]).all()
        numbers = [e.body["number"] for e in verdict.entries if "number" in e.body]
        assert numbers == sorted(set(numbers))
    assert not any(process.alive for process in every)
