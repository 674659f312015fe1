"""What audits of protocols that others maintain show, as a page: python -m examples.audit_others docs/audit-others.md

An adapter whose package is not installed keeps the results that it had. What is neither passed nor out of sight is for
a protocol's maintainers, and left out here: the command beside each name shows it.
"""

import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

from protocols.audit import PROPERTIES, audit

ADAPTERS = {"audit_flower": "flwr", "audit_nvflare": "nvflare", "audit_lightsecagg": "fedml"}
"""Module of this folder -> the package that it needs."""
WORDS = {
    "failed": "-",
    "not-visible": "not visible",
    "not-claimed": "not claimed",
    "not-checked": "not examined",
}
HEADER = """# Audits of protocols that others maintain

Made by `python -m examples.audit_others docs/audit-others.md`; each column by the command under its name, in the
folder `examples`. The adapters use the packages as they are installed (`pip install --no-deps fedml`).
*Not visible*: the adapter does not show it, and
the command says what it would have to give. *Not claimed*: promised in a stronger threat model than the adapter
declares. A dash: left to the maintainers of that protocol. A pass is evidence, not a proof, and speaks of the protocol
as its adapter plays it.
"""


def results(module: str, package: str) -> dict[str, object]:
    """Audit one adapter. Raises ImportError where its package is not there."""
    try:
        found = importlib.import_module(f"examples.{module}")
        box = found.factory()
    except ModuleNotFoundError as error:
        raise ImportError(f"{package} is not installed: {error}") from error
    report = audit(box)
    return {
        "protocol": report.protocol,
        "package": f"{package} {version(package)}",
        "results": {p.name: WORDS.get(p.status.value, p.status.value) for p in report.properties},
    }


def page(kept: dict[str, dict[str, object]]) -> str:
    """The table: property and result, by protocol."""
    names = [f"{found['protocol']} ({found['package']})" for found in kept.values()]
    lines = [HEADER, f"| property | {' | '.join(names)} |", f"|---|{'---|' * len(kept)}"]
    lines.append(f"| command | {' | '.join(f'`secagg audit {module}:factory`' for module in kept)} |")
    for prop in PROPERTIES:
        cells = [dict(found["results"]).get(prop.name, "not examined") for found in kept.values()]  # type: ignore[call-overload]
        lines.append(f"| `{prop.name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(path: Path) -> None:
    """Audit what is installed; keep the results beside the page, and make the page of all that were kept."""
    store = path.parent / "results" / "audit.others.json"
    kept = json.loads(store.read_text()) if store.exists() else {}
    for module, package in ADAPTERS.items():
        try:
            kept[module] = results(module, package)
            print(f"{module}: audited", flush=True)
        except ImportError as why:
            print(f"{module}: skipped, {why}", flush=True)
    store.write_text(json.dumps(kept, indent=1) + "\n")
    path.write_text(page({module: kept[module] for module in ADAPTERS if module in kept}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
