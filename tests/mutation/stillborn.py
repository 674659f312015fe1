"""Mutants that need no test run: those that mypy refuses, and those that change only the words of an error.

An error that mypy also finds in the unchanged function, or that comes from the way mutmut writes its functions,
is no reason.
"""

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

WORDS = "only the words of an error"
BY_PRODUCTS = {
    "comparison-overlap",
    "has-type",
    "import-not-found",
    "name-match",
    "no-any-return",
    "no-redef",
    "redundant-cast",
    "unreachable",
    "untyped-decorator",
    "unused-ignore",
    "var-annotated",
}
# Errors whose first argument is the message and nothing else.
SPOKEN = {
    "Aborted",
    "AlreadyDone",
    "AttributeError",
    "BadSignature",
    "BudgetExceeded",
    "CapacityError",
    "Infeasible",
    "MissingExtra",
    "Misuse",
    "NoResult",
    "NonFiniteGradient",
    "NotPerExample",
    "PeerError",
    "PolicyRefusal",
    "ProtocolViolation",
    "RecordError",
    "RollbackDetected",
    "SecAggError",
    "SpentUpdate",
    "StackError",
    "StoreBusy",
    "StoreError",
    "TooFewSurvivors",
    "TypeError",
    "UnaccountedStep",
    "UnknownEvent",
    "UnsupportedModule",
    "ValueError",
    "WireError",
    "refuse",
}
NUMBER = re.compile(r"__mutmut_(\d+|orig)")
Findings = dict[str, set[tuple[str, str]]]


def functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef]:
    """The functions that mutmut wrote, methods included."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from functions(node.body)
        elif isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name:
            yield node


def original(name: str) -> str:
    return name.split("__mutmut_")[0] + "__mutmut_orig"


def blanked(function: ast.FunctionDef) -> str:
    """The function without its name and without the messages of the errors it raises."""
    copy = ast.parse(ast.unparse(function)).body[0]
    assert isinstance(copy, ast.FunctionDef)
    copy.name = ""
    for node in ast.walk(copy):
        error = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(error, ast.Call) and isinstance(error.func, ast.Name) and error.func.id in SPOKEN:
            error.args[:1] = [ast.Constant("")]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
            node.args[1:] = []
    return ast.dump(copy)


def refused(folder: Path) -> dict[str, list[dict[str, object]]]:
    """What mypy finds, by file."""
    command = [sys.executable, "-m", "mypy", "--output", "json", "secagg", "protocols", "dp", "fl"]
    output = subprocess.run(command, capture_output=True, text=True, cwd=folder).stdout
    by_file = defaultdict(list)
    for line in output.splitlines():
        error = json.loads(line)
        if error["severity"] == "error" and error["code"] not in BY_PRODUCTS:
            by_file[error["file"]].append(error)
    return by_file


def findings(written: list[ast.FunctionDef], errors: list[dict[str, object]]) -> Findings:
    found: Findings = defaultdict(set)
    for error in errors:
        line = int(str(error["line"]))
        for function in written:
            if function.lineno <= line <= (function.end_lineno or 0):
                found[function.name].add((str(error["code"]), NUMBER.sub("", str(error["message"]))))
    return found


def set_aside(source: str, errors: list[dict[str, object]]) -> Iterator[tuple[str, str]]:
    """Name and reason of each mutated function of one file that no test needs to meet."""
    written = list(functions(ast.parse(source).body))
    found = findings(written, errors)
    unchanged = {f.name: blanked(f) for f in written if f.name.endswith("__mutmut_orig")}
    for function in written:
        if function.name in unchanged:
            continue
        news = found[function.name] - found[original(function.name)]
        if news:
            yield function.name, min(news)[1]
        elif blanked(function) == unchanged[original(function.name)]:
            yield function.name, WORDS


def write(folder: Path) -> None:
    """Write aside.jsonl: a line per mutant, with the reason."""
    errors = refused(folder)
    if not errors:
        raise SystemExit("mypy found nothing in the mutants: is it installed, and mutmut beside it?")
    lines = []
    for meta in sorted(folder.rglob("*.meta")):
        path = meta.with_suffix("")
        file = path.relative_to(folder)
        known = {name.rsplit(".", 1)[1]: name for name in json.loads(meta.read_text())["exit_code_by_key"]}
        for function, why in set_aside(path.read_text(), errors.get(str(file), [])):
            if function in known:
                lines.append(json.dumps({"mutant": known[function], "why": why}))
    (folder / "aside.jsonl").write_text("\n".join(lines) + "\n")
