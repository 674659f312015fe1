"""The table defects x properties: `make audit`. Which property catches what, and that sound protocols pass."""

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from protocols.audit import PROPERTIES, WhiteBox, audit
from protocols.audit.report import Report
from tests.defects.planting import Defect


def caught(defect: Defect, only: Iterable[str] = ()) -> set[str]:
    """Return the properties that fail while the defect is planted."""
    with defect.plant():
        report = audit(WhiteBox(defect.protocol), examples=defect.examples, only=only)
    return {p.name for p in report.properties if p.status.value == "failed"}


def sound(protocols: Iterable[tuple[str, Callable[[], object]]]) -> list[Report]:
    """Audit protocols in which nothing is planted."""
    return [audit(WhiteBox(make, name)) for name, make in protocols]  # type: ignore[arg-type]  # factories of sums


def main(arguments: list[str]) -> int:
    """Print the table; 1 if a defect slips through its named property, or a sound protocol fails one.

    A file name as argument keeps the table there, as Markdown.
    """
    from he import CKKSSum
    from secagg import SecAgg, SecAggPlus
    from tests.defects import ALL
    from tests.paillier_fixed import keyholder

    slipped = 0
    lines = ["| defect | caught by | and by |", "|---|---|---|"]
    began = time.perf_counter()
    for defect in ALL:
        found = caught(defect)
        ok = defect.caught_by in found
        slipped += not ok
        others = sorted(found - {defect.caught_by})
        lines.append(
            f"| {defect.name} | {defect.caught_by if ok else 'MISSED'} | {', '.join(others) or '-'} |"
        )
        print(
            f"{'caught' if ok else 'MISSED'}  {defect.name:55} {defect.caught_by:36} and {len(others)} more",
            flush=True,
        )
    lines += ["", "| sound protocol | properties passed | not claimed | failed |", "|---|---|---|---|"]
    for report in sound(
        [("secagg", SecAgg), ("secagg+", SecAggPlus), ("paillier", keyholder), ("ckks", CKKSSum)]
    ):
        count = {
            s: sum(p.status.value == s for p in report.properties)
            for s in ("passed", "not-claimed", "failed")
        }
        slipped += not report.passed
        lines.append(
            f"| {report.protocol} | {count['passed']} | {count['not-claimed']} | {count['failed']} |"
        )
        print(f"{'sound ' if report.passed else 'FAILS '}  {report.protocol:55} {count}", flush=True)
    print(
        f"{len(ALL)} defects, {len(PROPERTIES)} properties, {time.perf_counter() - began:.0f} s, {slipped} wrong"
    )
    for path in arguments:
        Path(path).write_text(HEADER + "\n".join(lines) + "\n")
    return int(slipped > 0)


HEADER = """# Planted defects, and what catches them

Made by `make audit`. Each line is a deliberately broken variant of a sound protocol; the property named first
is the one that must find it. Sound protocols fail nothing.

"""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
