"""What every test runs under: one thread per numerical library, since the tests themselves run side by
side, real data where a folder `shared/data` lies beside the checkout (tests that need it skip where there is
none), and temporary folders in memory where there is room: whatever a store, a record or a ledger keeps is synced
to disk, thousands of times in a session, and a test's folder outlives no power failure anyway.

With SECAGG_TEST_RESULTS a session keeps its outcomes in the file of that name: that is how `make test-slow`
leaves its last results. A session over a part of the tests replaces that part alone; each result says when and
of which commit it was had.
"""

import gc
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ROOT.parent / "shared" / "data"
MEMORY = Path("/dev/shm")
ROOM = 4 << 30
"""Free bytes that a session asks of a file system in memory; it takes less than one."""

WAITS = ("tests/flower/test_flower_deployment.py", "tests/flower/test_flower_engine.py")
"""Tests of whole deployments: a minute or two each, mostly spent waiting."""


def _has_room() -> bool:
    """Whether temporary folders may lie in MEMORY: programs can be run from there, and it has ROOM."""
    if not os.access(MEMORY, os.W_OK):
        return False
    there = os.statvfs(MEMORY)
    return there.f_bavail * there.f_frsize >= ROOM and not there.f_flag & os.ST_NOEXEC


settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # no example fails for its seconds: tests share the machine
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
if os.environ.get("SECAGG_MUTATION"):
    pytest_plugins = ["tests.mutation.plugin"]
if BESIDE.is_dir():
    os.environ.setdefault("SECAGG_DATA", str(BESIDE))
if "TMPDIR" not in os.environ and _has_room():
    tempfile.tempdir = str(MEMORY)  # of the tests alone: what they start (pip, Ray) may need more room


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage while modules are imported by the thousand: looking takes every worker seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Begin with what waits longest for processes of its own, so that no core idles for it at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(WAITS))


def pytest_runtest_setup(item: Any) -> None:
    """Leave the processor to whole deployments: their processes wait for one another, and time out."""
    if "PYTEST_XDIST_WORKER" in os.environ and not item.nodeid.startswith(WAITS) and not os.nice(0):
        os.nice(10)


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int) -> None:
    """Keep every test's outcome and seconds, with the machine they were had on."""
    target = os.environ.get("SECAGG_TEST_RESULTS")
    if not target:
        return
    now = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    results = _kept(Path(target))
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            seconds = round(getattr(report, "duration", 0.0), 2)
            results[report.nodeid] = {"outcome": outcome, "seconds": seconds} | now
    Path(target).write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


def _kept(target: Path) -> dict[str, Any]:
    """What earlier sessions left, of test files that still exist."""
    if not target.exists():
        return {}
    kept: dict[str, Any] = json.loads(target.read_text())
    return {name: result for name, result in kept.items() if (ROOT / name.split("::")[0]).exists()}


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True
    )
    return asked.stdout.strip() or "unknown"
