"""The table defects x properties: `make audit`. Which property catches what, and that sound protocols pass."""

import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from hypothesis import Phase, Verbosity, settings

from fl.cli.audit import named
from protocols.audit import PROPERTIES, Status, WhiteBox, audit, find
from protocols.audit.report import Report
from protocols.audit.runner import check
from tests.defects.forged import drawing_together
from tests.defects.pieces import malicious
from tests.defects.planting import Defect

BUILT_INS = {"none": 25, "secagg": 25, "secagg+": 25, "ckks": 10, "paillier": 3}
"""The secure sums of the command line, by name, with the examples per property that the table gives them."""
IN_FULL = {"secagg, malicious": malicious, "secagg+, malicious": drawing_together}
"""Sums that no name gives: the strongest model, in which every property of masks is claimed."""

UNSHRUNK = settings(phases=(Phase.explicit, Phase.generate), verbosity=Verbosity.quiet)


def caught(defect: Defect, only: Iterable[str] = ()) -> set[str]:
    """Return the properties that fail while the defect is planted. That one fails is asked, and not by how little."""
    with defect.plant():
        box = WhiteBox(defect.protocol)
        box.searched = defect.searched
        chosen = only or [p.name for p in PROPERTIES if not p.search or p.name == defect.caught_by]
        verdicts = [check(box, find(name), defect.examples, 0, UNSHRUNK) for name in chosen]
    return {verdict.name for verdict in verdicts if verdict.status is Status.FAILED}


def sound(name: str) -> Report:
    """Audit a built-in as the command line names it, or one of IN_FULL: nothing is planted in it."""
    if name in IN_FULL:
        return audit(WhiteBox(IN_FULL[name], name))
    return audit(named(name), examples=BUILT_INS[name])


def _caught(number: int) -> set[str]:
    from tests.defects import ALL

    return caught(ALL[number])


def main(arguments: list[str]) -> int:
    """Print the table; 1 if a defect slips through its named property, or a sound protocol fails one.

    A file name as argument keeps the table there, as Markdown.
    """
    from tests.defects import ALL

    slipped = 0
    lines = ["| defect | caught by | and by |", "|---|---|---|"]
    began = time.perf_counter()
    # forked workers: a defect that is planted in one leaves the others as they are
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("fork")) as workers:
        reports = workers.map(sound, [*BUILT_INS, *IN_FULL])
        for defect, found in zip(ALL, workers.map(_caught, range(len(ALL))), strict=True):
            ok = defect.caught_by in found
            slipped += not ok
            others = ", ".join(sorted(found - {defect.caught_by})) or "-"
            lines.append(f"| {defect.name} | {defect.caught_by if ok else 'MISSED'} | {others} |")
            told = f"{defect.name:55} {defect.caught_by:36} and {len(found) - ok} more"
            print(f"{'caught' if ok else 'MISSED'}  {told}", flush=True)
        lines += ["", "| sound protocol | properties passed | not claimed | failed |", "|---|---|---|---|"]
        for report in reports:
            count = {
                s: sum(p.status.value == s for p in report.properties)
                for s in ("passed", "not-claimed", "failed")
            }
            slipped += not report.passed
            lines.append(f"| {report.protocol} | {' | '.join(map(str, count.values()))} |")
            print(f"{'sound ' if report.passed else 'FAILS '}  {report.protocol:55} {count}", flush=True)
    took = time.perf_counter() - began
    print(f"{len(ALL)} defects, {len(PROPERTIES)} properties, {took:.0f} s, {slipped} wrong")
    for path in arguments:
        Path(path).write_text(HEADER + "\n".join(lines) + "\n")
    return int(slipped > 0)


HEADER = """# Planted defects, and what catches them

Made by `make audit`. Each line is a deliberately broken variant of a sound protocol; the property named first
is the one that must find it. Sound protocols, the built-ins by their names, fail nothing.

"""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
