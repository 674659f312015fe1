"""No module imports, through others, one that imports it: not lazily inside a function, not for types alone either."""

import grimp
import pytest

PACKAGES = ("protocols", "secagg", "dp", "he", "fl")


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The modules of every circle: those from which a chain of imports leads back to themselves."""
    reached: dict[str, set[str]] = {name: set(found) for name, found in imports.items()}
    changed = True
    while changed:
        changed = False
        for found in reached.values():
            more = set().union(*(imports[name] for name in found)) - found if found else set()
            found |= more
            changed = changed or bool(more)
    inside = {name for name, found in reached.items() if name in found}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in inside}
    return sorted(sorted(group) for group in groups)


def test_a_circle_is_found_however_long() -> None:
    line = {"a": {"b"}, "b": {"c"}, "c": set[str](), "d": {"d"}, "e": {"f"}, "f": {"g"}, "g": {"e", "a"}}
    assert circles(line) == [["d"], ["e", "f", "g"]]


def packages_too(importer: str, imported: set[str]) -> set[str]:
    """Return what an import runs: the packages that a module lies in come before it, but for those already begun."""
    names = [name.split(".") for name in imported]
    runs = {".".join(parts[:depth]) for parts in names for depth in range(1, len(parts) + 1)}
    return {name for name in runs if not f"{importer}.".startswith(f"{name}.")}


def test_an_import_runs_the_packages_around_a_module() -> None:
    assert packages_too("a.b", {"a.c.d", "e.f"}) == {"a.c", "a.c.d", "e", "e.f"}


@pytest.mark.filterwarnings("ignore")
def test_no_circle_of_imports() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    assert len(graph.modules) > 200
    direct = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert circles({name: packages_too(name, found) for name, found in direct.items()}) == []
