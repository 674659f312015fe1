"""Rules that hold for every module: what it opens with, how long it is, what it never calls."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("protocols", "secagg", "he", "dp", "fl", "benchmarks")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMED_FILE = re.compile(
    rf"(?<![\w/.-])(?:{'|'.join(PACKAGES)}|tests|examples|docs)/[\w./-]+\.(?:py|md|json|toml)\b"
)
UNPICKLERS = {"marshal", "shelve", "dill", "cloudpickle", "joblib"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(tree: ast.Module) -> set[str]:
    """The top-level names of everything that is imported, anywhere in a module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def attributes(tree: ast.Module) -> set[str]:
    """Every dotted name that is used, such as `np.random.default_rng`."""
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_says_what_it_is_and_is_not_too_long(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "it opens with no docstring"
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    manual = max((len((ast.get_docstring(node) or "").splitlines()) for node in classes), default=0)
    assert len(text.splitlines()) - manual <= 400, "beside a class' own manual, its docstring"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
    assert "NotImplementedError" not in text


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert imported(tree) & UNPICKLERS == set()
    assert "from pickle import" not in path.read_text()
    # an audit's bait
    assert {name for name in attributes(tree) if name.startswith("pickle.")} <= {"pickle.dumps"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert {ast.unparse(call.func) for call in calls} & {"eval", "exec", "compile", "__import__"} == set()
    for call in calls:
        given = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        if ast.unparse(call.func) in ("np.load", "numpy.load"):
            assert given.get("allow_pickle", False) is False, ast.unparse(call)
        if ast.unparse(call.func) == "torch.load":  # older versions unpickle unless told not to
            assert given.get("weights_only") is True, ast.unparse(call)


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if p.relative_to(ROOT).parts[0] in ("protocols", "secagg", "he", "dp")],
    ids=named,
)
def test_secrets_masks_and_noise_never_come_from_a_seeded_generator(path: Path) -> None:
    if "audit" in path.parts:
        return  # an audit draws test inputs and statistics, never a party's secrets
    if path == ROOT / "dp" / "sample" / "draws.py":
        return  # gives the user's own loop whole states from the operating system; no noise of ours follows them
    tree = ast.parse(path.read_text())
    assert "random" not in imported(tree)
    seeded = re.compile(r"^(np|numpy)\.random\b|^torch\.(rand|randn|randint|normal|Generator|manual_seed)\b")
    assert [name for name in attributes(tree) if seeded.search(name)] == []


def test_an_exception_from_a_linter_or_type_checker_has_its_reason_beside_it() -> None:
    bare = re.compile(r"#\s*(noqa(:\s*[A-Z0-9, ]+)?|type:\s*ignore(\[[a-z, -]+\])?)\s*$")
    without = [
        f"{named(path)}:{number}"
        for path in MODULES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert without == []


def test_a_file_that_a_module_or_the_makefile_names_is_there() -> None:
    """A list of test files that goes on naming one that has moved runs none of them."""
    places = [*MODULES, *(ROOT / "tests").rglob("*.py"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    gone = [
        f"{named(path)}: {name}"
        for path in places
        for name in NAMED_FILE.findall(path.read_text())
        if not (ROOT / name).exists()
    ]
    assert gone == []
