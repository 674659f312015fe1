"""What is known of flwr beyond its public names: still as the installed version has it."""

import inspect

import pytest
from flwr.superlink.servicer.runtime import runtime_handlers

from examples.flower.loopback import run_has_ended

LINE = "INFO :      Finished task 4 of run {}\n"


@pytest.mark.parametrize("run_id", [7, 12345678901234567890])
def test_a_run_has_ended_when_the_superlinks_log_says_so_of_that_run(run_id: int) -> None:
    log = f"INFO :      Started task 4 of run {run_id}\n" + LINE.format(f"{run_id}1")
    assert not run_has_ended(log, run_id)
    assert run_has_ended(log + LINE.format(run_id), run_id)


def test_the_installed_superlink_logs_that_line() -> None:
    assert '"Finished task %d of run %d"' in inspect.getsource(runtime_handlers)
