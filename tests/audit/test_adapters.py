"""Adapters that come along: protocols that others maintain, each where its package is installed, and a whole one."""

import importlib
import json
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from examples.audit_others import ADAPTERS, page
from examples.audit_whole_sum import TheirSum
from protocols.audit import PROPERTIES, Status, audit, subject_of
from protocols.audit.wire import Wire

HERE = Path(__file__).parents[2]
QUICK = ["exact-sum", "no-wrap-at-the-bound", "nothing-in-clear", "order-and-duplicates"]


def made(module: str, package: str) -> Any:
    pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    return importlib.import_module(f"examples.{module}").factory()


@pytest.mark.parametrize("module, package", [("audit_flower", "flwr"), ("audit_nvflare", "nvflare")])
def test_an_adapter_sums_exactly_and_hides_nothing_of_what_it_sends(module: str, package: str) -> None:
    report = audit(made(module, package), only=QUICK, examples=3)
    assert [(p.name, p.status) for p in report.properties] == [(name, Status.PASSED) for name in QUICK]


def test_lightsecagg_is_loaded_without_the_package_around_it() -> None:
    try:
        found = importlib.import_module("examples.audit_lightsecagg")
    except ImportError as why:  # fedml wants older versions of much: it is installed without what it asks for
        pytest.skip(f"fedml is not installed: {why}")
    report = audit(found.factory(), only=[*QUICK, "uniform-over-the-ring"], examples=3)
    assert report.passed


def test_a_node_that_leaves_early_is_an_error_reply_and_no_crash_of_the_adapter() -> None:
    box = made("audit_flower", "flwr")
    [left] = [audit(box, only=["no-total-beyond-tolerance"], examples=5).properties]
    assert left[0].status is Status.PASSED
    import numpy as np

    played = box.play([np.array([i], np.int64) for i in range(4)], {"setup": {0}})
    assert played.total is None
    assert played.why == ""  # the session ended as the workflow ends it
    assert Wire.last


def test_nothing_beside_the_adapters_hides_a_package_where_the_pages_commands_run() -> None:
    names = {path.stem for path in (HERE / "examples").iterdir()}
    known = {name.replace("-", "_").lower() for found in packages_distributions().values() for name in found}
    assert names.isdisjoint({*ADAPTERS.values(), *packages_distributions(), *known})


@pytest.mark.parametrize("module", ADAPTERS)
def test_an_adapter_has_at_most_a_hundred_lines(module: str) -> None:
    assert len((HERE / "examples" / f"{module}.py").read_text().splitlines()) <= 100


def test_the_page_of_others_is_made_of_the_kept_results_and_has_every_property() -> None:
    kept = json.loads((HERE / "docs" / "results" / "audit.others.json").read_text())
    assert set(kept) == set(ADAPTERS)
    assert (HERE / "docs" / "audit-others.md").read_text() == page({name: kept[name] for name in ADAPTERS})
    assert all(set(found["results"]) == {p.name for p in PROPERTIES} for found in kept.values())


def test_the_worked_example_of_a_whole_protocol_passes_what_it_claims() -> None:
    report = audit(subject_of(TheirSum), examples=10)
    assert report.passed
    assert report.level == "white"
    assert not report.count(Status.NOT_VISIBLE)
    assert report.count(Status.PASSED) >= 9
