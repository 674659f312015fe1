"""`secagg run`: train a federation from a TOML file and options with the same keys. What it prints is in
`run_view`.
"""

import inspect
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from typer import Argument, Option

from fl.cli import output
from fl.cli.init import PROJECT
from fl.round.result import require_total
from fl.run_config import RunConfig, make_config
from protocols.errors import Misuse, SecAggError

STAMP = "%Y%m%d-%H%M%S"
DEMO: dict[str, Any] = {
    "data": "digits", "clients": 10, "partition": "dirichlet:alpha=0.5", "model": "mlp", "rounds": 15,
    "local_epochs": 2,
    "learning_rate": 0.1, "batch_size": 16, "dropout": 0.2, "privacy": ["secagg+"],
}  # fmt: skip


def run(
    config: Annotated[
        Path | None,
        Argument(help=f"TOML file with the same keys as the options (default: {PROJECT}, if it is there)."),
    ] = None,
    *,
    resume: Annotated[bool, Option("--resume", help="Go on with the run in --output.")] = False,
    compare: Annotated[
        bool, Option("--compare", help="Also run without privacy layers, and show both.")
    ] = False,
    demo: Annotated[
        bool, Option("--demo", help="A small run on embedded real data, with --compare.")
    ] = False,
    as_json: output.JsonOption = False,
    **given: Any,
) -> None:
    """Trains one model over clients whose updates stay hidden."""
    from fl.cli.run_view import RunView
    from fl.run_parts import load_parts

    given = {key: value or None if isinstance(value, list) else value for key, value in given.items()}
    if resume:
        if demo:
            raise Misuse("--resume goes on with the run as it was: leave out --demo")
        config, given = _resumed(config, given)
    elif config is None and not demo and Path(PROJECT).is_file():
        config = Path(PROJECT)
    if demo:
        given = {**DEMO, **{k: v for k, v in given.items() if v is not None}}
    chosen = make_config(config, given)
    folder = Path(chosen.output) if chosen.output else _fresh(Path(f"runs/{datetime.now():{STAMP}}"))
    chosen = replace(chosen, output=str(folder))
    view = RunView(chosen, as_json, compare or demo)
    with view.status("loading data"):
        parts = load_parts(chosen)
    view.config = parts.config
    with _resumable(folder, chosen.rounds):
        result, engine_seen = execute(parts, folder, resume, view)
    plain = view.plain_run(parts) if (compare or demo) else None
    view.close(result, plain, engine_seen, folder)
    require_total(result.history)


def _as_text(kind: Any) -> Any:
    """Return the type that an option has: text for what may be more than text, a list for any number of them."""
    return list[str] if get_origin(kind) is tuple else str if str in get_args(kind) else kind


def _signature() -> inspect.Signature:
    """Return `run`'s signature with an option per field of RunConfig, the one table of keys, types and help texts."""
    own = list(inspect.signature(run).parameters.values())[:-1]
    options = []
    for key in RunConfig.in_order():
        names = ("--output", "-o") if key.name == "output" else ()
        asked = Option(None, *names, help=key.metadata["help"])
        kind, place = _as_text(key.type) | None, inspect.Parameter.KEYWORD_ONLY
        options.append(inspect.Parameter(key.name, place, default=asked, annotation=kind))
    return inspect.Signature([own[0], *options, *own[1:]])


run.__signature__ = _signature()  # type: ignore[attr-defined]  # typer reads it


def _fresh(folder: Path) -> Path:
    """A folder that is not there yet: two runs may begin within one second."""
    later = (folder.with_name(f"{folder.name}-{count}") for count in itertools.count(2))
    return next(place for place in itertools.chain([folder], later) if not place.exists())


def _resumed(config: Path | None, given: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Return the run's own config.toml as the configuration; other options must not contradict it."""
    from fl.round.run_files import CONFIG

    if config is not None or given["output"] is None:
        raise Misuse(
            "--resume takes the folder of the run as --output, and no configuration file: it has its own"
        )
    extra = sorted(k for k, v in given.items() if v is not None and k not in ("output", "rounds", "data_dir"))
    if extra:
        raise Misuse(f"--resume goes on with the run as it was: leave out {', '.join(extra)}")
    path = Path(given["output"]) / CONFIG
    if not path.exists():
        raise Misuse(f"nothing to resume in {given['output']}: there is no {CONFIG}")
    if given["rounds"] is None and (planned := _planned(path.parent)):
        given = {**given, "rounds": planned}
    return path, given


def _planned(folder: Path) -> int:
    """How many rounds the last whole entry of the run's record was one of: more than the configuration's, where the
    run was resumed to more; 0 where there is none. Whether the record holds is checked when it is continued.
    """
    from fl.round.run_files import last_entry

    try:
        return int((last_entry(folder) or {})["body"]["of"])
    except (KeyError, TypeError, ValueError):
        return 0


def execute(parts: Any, folder: Path, resume: bool, view: Any) -> tuple[Any, Any]:
    """Run the federation and return (result, what was seen of one client)."""
    from fl.run_parts import begin

    if parts.config.engine != "memory":
        return _elsewhere(parts, folder, resume, view)
    from fl.round.hidden import is_hidden

    federation = parts.federation(folder)
    resume = begin(parts.config, folder, resume)
    hidden = is_hidden(federation.setup.stack, federation.coordinator.planned(parts.config.rounds))
    seen = None if hidden else view.watch(federation)
    with view.live(parts.config.rounds) as on_round:
        if not hidden:  # the bar counts who trains
            federation.engine.progress = view.progress
        result = federation.fit(parts.config.rounds, resume=resume, on_round=on_round)
    return result, seen


def _elsewhere(parts: Any, folder: Path, resume: bool, view: Any) -> tuple[Any, Any]:
    if parts.config.engine != "flower-simulation":
        raise Misuse(f"engine: expected memory or flower-simulation, got {parts.config.engine!r}")
    from fl.flower.simulation import run_simulation
    from fl.run_parts import begin

    resume = begin(parts.config, folder, resume)
    with view.live(parts.config.rounds) as on_round:
        return run_simulation(parts, folder, resume=resume, on_round=on_round), None


@contextmanager
def _resumable(folder: Path, rounds: int) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise SecAggError(
            f"interrupted; go on with: secagg run --resume --output {folder} --rounds {rounds}"
        ) from None
