"""Every optional dependency has a line about its licence, and the licence is the one that its package states."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NAMES = sorted(
    {re.split(r"[\[<>=, ]", wanted)[0] for extra, all in EXTRAS.items() if extra != "dev" for wanted in all}
    - {"secagg-toolkit"}
)
ROWS = re.findall(
    r"^\| ([\w\-., ]+) \| `",
    (ROOT / "docs" / "install.md").read_text().partition("## Licences")[2],
    re.MULTILINE,
)


def test_every_optional_dependency_has_a_line_about_its_licence() -> None:
    told = {name for row in ROWS for name in row.split(", ")}
    assert [name for name in NAMES if name not in told] == []


@pytest.mark.parametrize("name", NAMES)
def test_copyleft_is_said_where_a_package_is_under_it(name: str) -> None:
    try:
        stated = metadata(name)
    except PackageNotFoundError:
        pytest.skip("not installed")
    words = " ".join([stated.get("License-Expression") or "", *(stated.get_all("Classifier") or [])])
    found = re.search(r"\bL?GPL|MPL|GNU|Mozilla", words)
    assert bool(found) == (name in ("phe", "gmpy2", "hypothesis")), words
    if found:
        assert name in (ROOT / "README.md").read_text()
