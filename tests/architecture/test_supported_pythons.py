"""Supported Pythons are those that the metadata names and on which the project was installed and ran."""

import json
from pathlib import Path

import pytest

from tests.pythons import (
    EXTRAS,
    MARK,
    PAGE,
    PROJECT,
    PYTHONS,
    RESULT,
    UNREACHABLE,
    check,
    interpreters,
    table,
)

RESULTS = json.loads(RESULT.read_text())


@pytest.mark.parametrize("version", PYTHONS)
def test_every_python_that_the_metadata_names_was_installed_for(version: str) -> None:
    result = RESULTS["pythons"].get(version)
    assert result is not None, f"run `make pythons`: {version} was never checked"
    assert result["outcome"] == "passed", result
    assert result["python"].startswith(f"{version}.")
    assert set(result["installed"]) == {"core", *EXTRAS}
    assert result["installed"]["core"] == "installed"
    assert set(result["commands"].values()) == {0}
    assert (result["tests"]["failed"], result["tests"]["exit"]) == (0, 0)
    assert result["tests"]["passed"] > 100


def test_the_page_has_the_table_of_the_last_outcome() -> None:
    shown = MARK.search(PAGE.read_text())
    assert shown is not None
    assert shown.group() == table(RESULTS)


def test_every_extra_is_installed_by_the_check() -> None:
    assert set(EXTRAS) == {*PROJECT["optional-dependencies"]} - {"dev"}


def test_a_python_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    said: list[str] = []
    assert check("3.99", tmp_path, report=said.append) == {"python": "3.99", "outcome": "not found"}
    assert "not found" in said[0]
    assert "| 3.99 |" not in table(RESULTS)
    assert interpreters("3.99") == []


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_it_installs_and_runs_here(version: str, tmp_path: Path) -> None:
    if not interpreters(version):
        pytest.skip(f"Python {version} is not on this machine")
    result = check(version, tmp_path, extras=("audit", "he"))
    if UNREACHABLE in result["installed"].values():
        pytest.skip(UNREACHABLE)
    assert result["outcome"] == "passed", result
    assert set(result["installed"].values()) == {"installed"}
