"""The documentation names what exists: tests, examples, commands; and every sharp edge has its property and test."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
EDGES = (ROOT / "docs" / "sharp-edges.md").read_text()
SHARP_EDGES = 47
PACKAGES = ("protocols", "secagg", "dp", "he", "fl")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def names_in(path: Path) -> frozenset[str]:
    """Names of the functions and classes of a test file, methods as Class::name."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_tests_and_examples_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    for file, test in re.findall(r"`(tests/[\w/]+\.py)(?:::([\w:]+))?`", text):
        assert (ROOT / file).is_file(), file
        assert not test or test in names_in(ROOT / file), f"{file}::{test}"
    for example in re.findall(r"\bexamples/[\w/]+\.(?:py|toml)\b", text):
        assert (ROOT / example).is_file(), example


@cache
def words_of_the_code() -> frozenset[str]:
    files = [file for folder in (*PACKAGES, "tests") for file in (ROOT / folder).rglob("*.py")]
    return frozenset(word for file in files for word in re.findall(r"\w+", file.read_text()))


def test_what_the_pages_of_decisions_and_the_drawing_of_a_round_name_exists() -> None:
    pages = [
        re.sub(r"```.*?```", "", p.read_text(), flags=re.DOTALL) for p in (ROOT / "docs/design").glob("*.md")
    ]
    told = [name for page in pages for name in re.findall(r"`([A-Za-z_]\w*(?:\.\w+)*)(?:\(.*\))?`", page)]
    drawn = re.findall(r">\d+  ([\w.]+)<", (ROOT / "docs/figures/update.svg").read_text())
    assert len(drawn) == 12
    code = [name for name in told if re.search(r"[A-Z_]", name)] + drawn
    assert len(code) > 100
    assert sorted({name for name in code if not words_of_the_code() >= set(name.split("."))}) == []


@pytest.mark.parametrize("number", range(1, SHARP_EDGES + 1))
def test_every_sharp_edge_has_a_property_and_a_test(number: int) -> None:
    rows = re.findall(rf"^\| {number} \|(.+)\|(.+)\|$", EDGES, re.MULTILINE)
    assert len(rows) == 1
    assert len(rows[0][0].strip()) > 20
    assert "`tests/" in rows[0][1]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_commands_that_a_page_shows_exist(page: Path) -> None:
    for command in re.findall(r"^(?:\$ )?secagg ([a-z]+)", page.read_text(), re.MULTILINE):
        assert (ROOT / "fl" / "cli" / f"{command}.py").is_file(), command


def test_the_first_page_names_no_page_twice() -> None:
    named = re.findall(r"\]\(([^)#]+)", (ROOT / "docs" / "index.md").read_text())
    assert len(named) > 30
    assert [page for page in named if named.count(page) > 1] == []


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_sentences_that_a_newcomer_stumbled_on_are_gone(page: Path) -> None:
    text = " ".join(page.read_text().split())
    riddles = (
        "of two, each would know the other",
        "chain of states, without any input or output",
        "could be no layer of a federation",
        "do what they say",
    )
    assert [riddle for riddle in riddles if riddle in text] == []


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=named)
def test_what_a_page_beside_the_documentation_links_to_exists(page: Path) -> None:
    """`mkdocs build --strict` looks at the links of docs/ alone."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", page.read_text()):
        assert (ROOT / target).exists(), target
        if anchor and target.endswith(".md"):
            headings = re.findall(r"^#+ (.+)$", (ROOT / target).read_text(), re.MULTILINE)
            slugs = {
                re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
            }
            assert anchor in slugs, f"{target}#{anchor}"
