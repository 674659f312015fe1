"""The adversary that searches, over every built-in: `python -m tests.defects.searches FILE`. What comes of it is kept
in the file, row by row; what is there already is not searched again. Findings belong to no sound protocol: exit code 1.
"""

import sys
import time
from pathlib import Path

from fl.cli.audit import named
from protocols.audit import PROPERTIES, audit
from protocols.audit.subject import Searched

SETUPS = ("setup=fresh", "setup=reuse")
THREATS = ("semi-honest", "semi-malicious", "malicious")
NAMES = (
    *(f"{name}:threat={threat},{setup}" for setup in SETUPS for name in ("secagg", "secagg+") for threat in THREATS),
    "paillier",
    "paillier:arrangement=keyholder",
    "ckks",
    "ckks:arrangement=shared",
)  # fmt: skip
SIZES = Searched(complete=(5,), sparse=(8,), ring=((20, 10),), seconds=200.0)
HEADER = """# What an adversary that searches found in the built-ins

Made by `python -m tests.defects.searches docs/audit-searches.md`: every built-in, in every threat model, with fresh and
reused keys, with the sparse graphs of its kind; semi-honest sums are searched for schedules alone. Cohorts of 5
clients and sparse graphs of 8 are searched to the end, a ring of 20 in pairs of neighbours. What has no row
was not searched.

| built-in | property | verdict | how far |
|---|---|---|---|
"""


def rows(name: str) -> list[str]:
    """Search one built-in."""
    subject, began = named(name), time.process_time()
    subject.searched = SIZES
    report = audit(subject, examples=1, only=[p.name for p in PROPERTIES if p.search])
    took = time.process_time() - began
    found = []
    for p in report.properties:
        how = subject.examined.get(p.name) or p.counterexample or p.reason or ""
        found.append(f"| {name} | {p.name} | {p.status.value} | {' '.join(how.split())} |")
    print(f"{name}: {took:.0f} s of processor", flush=True)
    return found


def main(arguments: list[str]) -> int:
    """Search what the file lacks; 1 if anything was found."""
    path = Path(arguments[0])
    kept = path.read_text().splitlines() if path.exists() else []
    lines = [line for line in kept if line.startswith("| ") and not line.startswith("| built-in")]
    done = {line.split(" | ")[0].removeprefix("| ") for line in lines}
    for name in NAMES:
        if name not in done:
            lines += rows(name)
            path.write_text(HEADER + "\n".join(lines) + "\n")
    return int(any("| failed |" in line for line in lines))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
