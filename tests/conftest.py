"""What every test runs under: one thread per numerical library, since the tests themselves run side by
side, and real data where a folder `shared/data` lies beside the checkout (tests that need it skip where
there is none).

With SECAGG_TEST_RESULTS a session keeps its outcomes in the file of that name: that is how `make test-slow`
leaves its last results.
"""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
if os.environ.get(
    "SECAGG_MUTATION"
):  # mutants are tested many times in one process, which hypothesis warns of
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "mutation", max_examples=15, deadline=None, suppress_health_check=list(HealthCheck)
    )
    settings.load_profile("mutation")
if BESIDE.is_dir():
    os.environ.setdefault("SECAGG_DATA", str(BESIDE))


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int) -> None:
    """Keep every test's outcome and seconds, with the machine they were had on."""
    target = os.environ.get("SECAGG_TEST_RESULTS")
    if not target:
        return
    listed = [
        {"test": report.nodeid, "outcome": outcome, "seconds": round(getattr(report, "duration", 0.0), 2)}
        for outcome in ("passed", "failed", "skipped", "error")
        for report in terminalreporter.stats.get(outcome, [])
    ]
    result = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "exit": int(exitstatus),
        "tests": sorted(listed, key=lambda entry: str(entry["test"])),
    }
    Path(target).write_text(json.dumps(result, indent=1) + "\n")
