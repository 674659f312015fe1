"""`secagg audit`: check a protocol's properties, or sample-dp (`audit_sample`), and print what was found."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer import Argument, Option

from fl.cli import audit_sample, output
from protocols.errors import Misuse, SecAggError

if TYPE_CHECKING:
    from protocols.audit import Checked, Property, Report, Subject

STYLES = {
    "passed": "green",
    "failed": "bold red",
    "not-checked": "yellow",
    "not-claimed": "dim",
    "not-visible": "cyan",
}
ROSTER = 64
"""Names that simulated credentials are made for: "0", "1", ...; an audit's sessions have fewer clients."""


def audit(
    protocol: Annotated[
        str,
        Argument(
            help="A built-in name, package.module:factory (of your own sum, or an adapter), or sample-dp "
            "(with --model, --data)."
        ),
    ],
    examples: Annotated[int, Option(help="Examples per property.", min=1)] = 25,
    seed: Annotated[int, Option(help="Seed of the examples.")] = 0,
    only: Annotated[list[str] | None, Option(help="A property; repeat for several.")] = None,
    search: Annotated[
        bool, Option(help="Let an adversary plan against the real states too; takes minutes.")
    ] = False,
    timeout: Annotated[
        float | None,
        Option(help="Seconds that one session of a black box may take; 60 unless it says otherwise."),
    ] = None,
    limit: Annotated[
        float | None,
        Option(help="Seconds that the audit may take; 170 for a black box without --search, else none."),
    ] = None,
    report: Annotated[
        list[Path] | None, Option(help="Keep the evidence: a .md, .html or .json file; repeat for several.")
    ] = None,
    model: Annotated[str | None, Option(help="sample-dp: package.module:factory of the model.")] = None,
    data: Annotated[
        str | None, Option(help="sample-dp: a data set's name, or a factory of a batch, data set or loader.")
    ] = None,
    loss: Annotated[
        str | None,
        Option(help="sample-dp: package.module:function, loss(model, batch); cross entropy by default."),
    ] = None,
    gradients: Annotated[str, Option(help="sample-dp: the mode that decides.")] = "hooks",
    clip: Annotated[float, Option(help="sample-dp: L2 norm of an example's gradient.")] = 1.0,
    canaries: Annotated[
        int, Option(help="sample-dp: examples of a measured lower bound; 0 for none.", min=0)
    ] = 100,
    as_json: output.JsonOption = False,
) -> None:
    """Audits a secure sum, or sample-dp on a model: exit 0 if it passed, 1 if not, 2 if the request was wrong."""
    if protocol == audit_sample.NAME:
        if only or report or timeout is not None or limit is not None:
            raise Misuse("--only, --report, --timeout and --limit are for secure sums, not for sample-dp")
        _sample(model, data, loss, as_json, gradients=gradients, clip=clip, canaries=canaries)
    if model or data or loss:
        raise Misuse(f"--model, --data and --loss are for sample-dp, not for {protocol}")
    from protocols.extras import needs

    with needs("audit", "secagg audit"):
        from protocols.audit import planned, runner

    for path in report or []:
        if path.suffix not in (".md", ".html", ".json"):
            raise Misuse(f"--report takes a file ending in .md, .html or .json, not {path}")
    with _printing_to_stderr() if as_json else contextlib.nullcontext():
        subject = named(protocol)
        _limit(subject, timeout)
        asked: dict[str, Any] = {"only": only or (), "search": search}
        progress = _Progress(as_json, planned(subject, **asked))
        try:
            given: dict[str, Any] = {"examples": examples, "seed": seed, "seconds": limit}
            made = runner.audit(subject, on_property=progress, **given, **asked)
        finally:
            progress.close()
    for path in report or []:
        _keep(made, path)
    _finish(made, as_json, show)


def _sample(model: str | None, data: str | None, loss: str | None, as_json: bool, **options: Any) -> NoReturn:
    with _printing_to_stderr() if as_json else contextlib.nullcontext():
        found = audit_sample.made(model, data, loss, **options)
    _finish(found, as_json, audit_sample.show)


def _finish(found: Any, as_json: bool, show: Callable[[Any], None]) -> NoReturn:
    """Print what was found, and leave with 0 if it passed, else 1."""
    if as_json:
        output.emit_json(found.to_json())
    else:
        show(found)
    raise typer.Exit(0 if found.passed else 1)


def named(protocol: str) -> "Subject":
    """Return the subject of a built-in name or of package.module:factory. Raises Misuse, MissingExtra."""
    try:
        subject = _made(protocol)
    except SecAggError:
        raise
    except (Exception, SystemExit) as error:  # a user's own module and factory may raise anything
        said = f"{type(error).__name__}: {error}"
        raise Misuse(f"{protocol} gave nothing to audit; it raised {said}") from error
    subject.reference = protocol
    return subject


def _made(protocol: str) -> "Subject":
    from fl.registry import PRIVACY
    from fl.specs import bind, parameters_of
    from protocols.audit import subject_of
    from protocols.summation import SecureSum

    sums = replace(PRIVACY, kind="secure sum")
    spec = sums.parse(protocol)
    factory = sums.factory(spec.name)
    if spec.name not in sums.names():
        arguments = bind(spec, factory, {})
        return subject_of(lambda: factory(**arguments), protocol)
    given: dict[str, Any] = {}
    if spec.options.get("threat") == "malicious" and "credentials" in parameters_of(factory):
        from secagg import Credentials

        given = {"credentials": Credentials.simulated(range(ROSTER))}
    built = sums.build(spec, **given)
    if not isinstance(built, SecureSum):
        raise Misuse(f"{protocol} is a layer, not a secure sum: audit the sum at the end of the stack")
    return subject_of(built, protocol)


def _limit(subject: "Subject", timeout: float | None) -> None:
    from protocols.audit import BlackBox

    if timeout is None:
        return
    if not isinstance(subject, BlackBox):
        raise Misuse(f"--timeout holds for sessions of a black box; {subject.name} is a white box")
    if timeout <= 0:
        raise Misuse(f"--timeout takes seconds above 0, not {timeout:g}")
    subject.timeout = timeout


@contextlib.contextmanager
def _printing_to_stderr() -> Iterator[None]:
    """What a protocol prints, its other processes too, goes to standard error: standard output is for the result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class _Progress:
    """A live line: what is being checked, how far the audit is, what comes next. Where no terminal reads it, a line of
    its own for each property.
    """

    def __init__(self, as_json: bool, plan: "Sequence[Property]") -> None:
        self._console = output.stderr_console() if as_json else output.stdout_console()
        self._status = self._console.status("starting")
        self._names, self._began = [prop.name for prop in plan], time.monotonic()
        if self._console.is_terminal:
            self._status.start()

    def __call__(self, prop: "Property", verdict: "Checked | None") -> None:
        if verdict is not None:
            style = STYLES[verdict.status.value]
            self._console.print(
                f"{verdict.seconds:7.2f} s  {verdict.name}: [{style}]{verdict.status.value}[/{style}]"
            )
            return
        place = self._names.index(prop.name) + 1
        then = f", then {self._names[place]}" if place < len(self._names) else ""
        far = f"({place} of {len(self._names)}, {time.monotonic() - self._began:.0f} s{then})"
        if self._console.is_terminal:
            self._status.update(f"{prop.name} {far}: {prop.claim}")
        else:
            self._console.print(f" checking  {prop.name}  {far}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._status.stop()


def show(report: "Report") -> None:
    """Print the verdicts: what was not checked first, then failures with their stories. Nothing is wrapped."""
    from rich.markup import escape

    from protocols.audit import Status, find

    in_groups = (Status.NOT_CLAIMED, Status.NOT_VISIBLE)
    console = output.stdout_console()
    verdict = f"[bold {'green' if report.passed else 'red'}]{report.verdict}[/]"
    said = f"({report.level} box, threat model {escape(report.threat)}, seed {report.seed})"
    console.print(f"\n{escape(report.protocol)}: {verdict} {said}", soft_wrap=True)
    for checked in report.ordered():
        if checked.status in (Status.PASSED, *in_groups):
            continue
        console.print(f"\n{checked.status.value}: {checked.name}", style=STYLES[checked.status.value])
        story = f"  claims: {checked.claim}\n  {checked.counterexample or checked.reason}"
        console.print(story, highlight=False, markup=False, emoji=False, soft_wrap=True)
    for status, reason, whose in ((s, *item) for s in in_groups for item in report.reasons(s).items()):
        group = f"\n{status.value.replace('-', ' ')}: {', '.join(whose)}"
        console.print(group, style=STYLES[status.value], soft_wrap=True)
        console.print(f"  {reason}", highlight=False, markup=False, soft_wrap=True)
    if report.cut_off:
        console.print(f"\nnot reached: {', '.join(report.cut_off)}", style="yellow", soft_wrap=True)
    if report.not_searched:
        names = ", ".join(report.not_searched)
        console.print(f"\nnot examined: {names}\n  add --search", style="yellow", soft_wrap=True)
    for checked in report.properties:
        if checked.status.value == "passed" and find(checked.name).search:
            console.print(
                f"\nsearched: {checked.name}\n  {checked.statistics}", soft_wrap=True, highlight=False
            )
    for checked in report.properties:
        if checked.status.value == "passed" and checked.reason:
            console.print(f"\n{checked.name}: {checked.reason}", soft_wrap=True, highlight=False)
    console.print(f"\n{report.closing()}", soft_wrap=True)


def _keep(report: "Report", path: Path) -> None:
    import json

    from protocols.store import write_atomic

    if path.suffix == ".json":
        text = json.dumps(report.to_json(), indent=2) + "\n"
    else:
        text = report.to_markdown() if path.suffix == ".md" else report.to_html()
    write_atomic(path, text.encode(), 0o644)
