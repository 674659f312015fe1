"""`secagg audit`: check a protocol's properties and print what they found."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl.cli import output
from protocols.errors import Misuse

if TYPE_CHECKING:
    from protocols.audit import Checked, Property, Report

STYLES = {"passed": "green", "failed": "bold red", "not-checked": "yellow", "not-claimed": "dim"}


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("audit")(run)


def run(
    protocol: Annotated[str, typer.Argument(help="A built-in name, or package.module:factory.")],
    examples: Annotated[int, typer.Option(help="Examples per property.", min=1)] = 25,
    seed: Annotated[int, typer.Option(help="Seed of the examples.")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="A property; repeat for several.")] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(help="Keep the evidence: a .md, .html or .json file; repeat for several."),
    ] = None,
    as_json: output.JsonOption = False,
) -> None:
    """Audits a secure-aggregation protocol: exit 0 if it passed, 1 if not."""
    from protocols.extras import needs

    with needs("audit", "secagg audit"):
        from protocols.audit import audit

    for path in report or []:
        if path.suffix not in (".md", ".html", ".json"):
            raise Misuse(f"--report takes a file ending in .md, .html or .json, not {path}")
    subject = named(protocol)
    subject.reference = protocol
    progress = _Progress(as_json)
    made = audit(subject, examples=examples, seed=seed, only=only or (), on_property=progress)
    progress.close()
    for path in report or []:
        _keep(made, path)
    if as_json:
        output.emit_json(made.to_json())
    else:
        show(made)
    raise typer.Exit(0 if made.passed else 1)


def named(protocol: str) -> Any:
    """Return the subject of a built-in name or of package.module:factory. Raises Misuse, MissingExtra."""
    from fl.registry import PRIVACY
    from protocols.audit import subject_of
    from protocols.summation import SecureSum

    spec = PRIVACY.parse(protocol)
    if spec.name in PRIVACY.names():
        built = PRIVACY.build(spec)
        if not isinstance(built, SecureSum):
            raise Misuse(f"{protocol} is a layer, not a secure sum: audit the sum at the end of the stack")
        return subject_of(built, protocol)
    return subject_of(PRIVACY.factory(spec.name), protocol)


class _Progress:
    """A live line for the property that is being checked."""

    def __init__(self, as_json: bool) -> None:
        self._console = output.stderr_console() if as_json else output.stdout_console()
        self._status = self._console.status("starting")
        self._status.start()

    def __call__(self, prop: "Property", verdict: "Checked | None") -> None:
        if verdict is None:
            self._status.update(f"{prop.name}: {prop.claim}")
        else:
            style = STYLES[verdict.status.value]
            self._console.print(
                f"{verdict.seconds:7.2f} s  {verdict.name}: [{style}]{verdict.status.value}[/{style}]"
            )

    def close(self) -> None:
        self._status.stop()


def show(report: "Report") -> None:
    """Print the verdicts: what was not checked first, then failures with their stories."""
    console = output.stdout_console()
    verdict = "[bold green]passed[/]" if report.passed else "[bold red]did not pass[/]"
    console.print(
        f"\n{report.protocol}: {verdict} ({report.level} box, threat model {report.threat}, seed {report.seed})"
    )
    for checked in report.ordered():
        if checked.status.value == "passed":
            continue
        console.print(f"\n{checked.status.value}: {checked.name}", style=STYLES[checked.status.value])
        console.print(f"  claims: {checked.claim}", highlight=False)
        console.print(f"  {checked.counterexample or checked.reason}", highlight=False, markup=False)
    passed = sum(checked.status.value == "passed" for checked in report.properties)
    console.print(f"\n{passed} of {len(report.properties)} properties passed")


def _keep(report: "Report", path: Path) -> None:
    import json

    from protocols.store import write_atomic

    if path.suffix == ".json":
        text = json.dumps(report.to_json(), indent=2) + "\n"
    else:
        text = report.to_markdown() if path.suffix == ".md" else report.to_html()
    write_atomic(path, text.encode(), 0o644)
