"""The table defects x properties: `make audit`. Which property catches what, and that sound protocols pass."""

import time
from collections.abc import Callable, Iterable

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


def main() -> int:
    """Print the table; 1 if a defect slips through its named property, or a sound protocol fails one."""
    from secagg import SecAgg, SecAggPlus
    from tests.defects import ALL

    slipped = 0
    began = time.perf_counter()
    for defect in ALL:
        found = caught(defect)
        ok = defect.caught_by in found
        slipped += not ok
        others = f"and by {len(found - {defect.caught_by})} more"
        print(f"{'caught' if ok else 'MISSED'}  {defect.name:55} {defect.caught_by:36} {others}", flush=True)
    for report in sound([("secagg", SecAgg), ("secagg+", SecAggPlus)]):
        failed = [p.name for p in report.properties if p.status.value == "failed"]
        slipped += bool(failed)
        print(f"sound    {report.protocol:55} {failed or 'passes'}")
    print(
        f"{len(ALL)} defects, {len(PROPERTIES)} properties, {time.perf_counter() - began:.0f} s, {slipped} wrong"
    )
    return int(slipped > 0)


if __name__ == "__main__":
    raise SystemExit(main())
