"""Every block of every page is run, and its output compared. What is long is marked slow on the page itself."""

import os
import sysconfig
from pathlib import Path

import pytest

from tests.documentation.blocks import ROOT, Reader, blocks

PAGES = [
    path
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    if any("diff" not in block.kind for block in blocks(path))
]


def parameter(page: Path) -> object:
    slow = any(block.kind == "<!-- slow" for block in blocks(page))
    name = str(page.relative_to(ROOT))
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("page", [parameter(page) for page in PAGES])
def test_what_a_page_shows_runs_and_prints_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")  # a deployment starts a process per message
    monkeypatch.delenv("SECAGG_TEST_RESULTS", raising=False)
    assert Reader(page, tmp_path).read() == len(blocks(page))
