"""Every layer has a page of one form, which names every option that its constructor takes."""

import inspect
import re
from pathlib import Path

import pytest

from fl.registry import PRIVACY

LAYERS = Path(__file__).resolve().parents[2] / "docs" / "layers"
FORM = [
    "In one sentence",
    "Use it when",
    "When not",
    "What it protects, from whom",
    "What it costs",
    "Options, by what they are for",
    "Paper",
]
PAGE = {
    "none": "plain",
    "secagg+": "secagg-plus",
    "few-bits": "compression",
    "random-k": "compression",
    "low-rank": "compression",
}


@pytest.mark.parametrize("name", PRIVACY.builtin)
def test_a_layers_page_has_the_form_and_names_every_option(name: str) -> None:
    text = (LAYERS / f"{PAGE.get(name, name)}.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings in (FORM, [*FORM, "In detail"])
    assert f"`{name}`" in text, "it is named as on the command line"
    options = text.partition("## Options")[2].partition("## Paper")[0]
    missing = [o for o in inspect.signature(PRIVACY.factory(name)).parameters if f"`{o}`" not in options]
    assert missing == []


@pytest.mark.parametrize("page", sorted(LAYERS.glob("*.md")), ids=lambda page: page.stem)
def test_the_page_of_all_layers_links_to_each(page: Path) -> None:
    assert page.stem == "index" or f"({page.name})" in (LAYERS / "index.md").read_text()
