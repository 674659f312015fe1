"""A class name means one thing in all five packages."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("protocols", "he", "secagg", "dp", "fl")


def test_a_class_has_its_name_alone() -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            module = str(path.relative_to(ROOT))
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    where[node.name.lstrip("_")].append(module)
    double = {name: paths for name, paths in where.items() if len(paths) > 1}
    assert double == {}
