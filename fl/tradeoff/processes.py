"""Playing a sweep: a process per group of cells, rows appended as they come, a killed sweep goes on with `resume`.

What does not belong here: which cells there are, what a row says.
"""

import fcntl
import json
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TextIO

from fl.report.folders import CELLS, Json, cells_of
from fl.run_config import RunConfig
from fl.tradeoff.rows import SCHEMA, Tradeoff, row
from fl.tradeoff.sweep import Cell, Sweep, axes, coarse_to_fine
from protocols.errors import Misuse, SecAggError
from protocols.kernel import SERVER

CHECKED = 1
"""Rounds of a cell that shares another's training: enough for its bytes and seconds, and to compare a model with it."""
Told = Callable[[int, int, Json], None]


def tradeoff(
    config: Mapping[str, Any] | RunConfig,
    output: Path,
    *,
    minutes: float | None = None,
    resume: bool = False,
    processes: int | None = None,
    on_cell: Told | None = None,
    **varied: Any,
) -> Tradeoff:
    """Play every combination of layers, epsilons, sums, compression, strategies, drop-outs and seeds; return the rows.

    config: the run's keys (as in config.toml), or a `RunConfig`. output: the sweep's folder, a run folder per cell and
    cells.jsonl. minutes: begin no cell after so many (None: no limit); cells come coarse to fine. resume: go on in
    `output`, with what was played there. processes: at a time (None: one per core). on_cell: called with (done, of,
    row). varied: what `Axes` lists, such as epsilons=("none", 8.0), seeds=3.

    Sums that are exact give the same model: such cells share one training; each plays one round of its own, and the
    model after it must be the shared one's, bit for bit. A cell with noise is a run of its own. A combination that the
    layers refuse is a row with its reason. Raises Misuse for a folder with another sweep, and for unknown axes.

    >>> tradeoff({"data": "digits"}, Path("sweep"), layers=("client-dp",), epsilons=(8.0,), seeds=1)  # doctest: +SKIP
    """
    base = config if isinstance(config, RunConfig) else RunConfig(**config)
    (made,) = play(
        {output: Sweep(base, axes(varied))},
        minutes=minutes,
        resume=resume,
        processes=processes,
        on_cell=on_cell,
    )
    return made


def play(
    sweeps: Mapping[Path, Sweep],
    *,
    minutes: float | None,
    resume: bool,
    processes: int | None,
    on_cell: Told | None,
) -> list[Tradeoff]:
    """`tradeoff`, of sweeps that were read, by folder: one seed of all of them before the next."""
    planned = coarse_to_fine(list(sweeps.values()))
    made = [Tradeoff(folder) for folder in sweeps]
    for at, sweep in enumerate(made):
        names = {cell.name for of, group in planned if of == at for cell in group}
        sweep.rows, sweep.left = _begun(sweep.folder, resume, names), len(names)
    known = {row["cell"] for sweep in made for row in sweep.rows}
    left = [
        (group, made[at].folder) for at, group in planned if any(cell.name not in known for cell in group)
    ]
    until = None if minutes is None else time.monotonic() + 60 * minutes
    total = sum(sweep.left for sweep in made)
    with ExitStack() as opened:
        lines = {sweep.folder: opened.enter_context((sweep.folder / CELLS).open("a")) for sweep in made}
        for each in lines.values():
            _lock(each)
        for folder, entry in _played(left, until, processes or os.cpu_count() or 1):
            if entry["cell"] in known:
                continue  # of a group that was cut off: played before
            known.add(entry["cell"])
            next(sweep.rows for sweep in made if sweep.folder == folder).append(entry)
            lines[folder].write(json.dumps(entry, allow_nan=False) + "\n")
            lines[folder].flush()
            os.fsync(lines[folder].fileno())
            if on_cell is not None:
                on_cell(len(known), total, entry)
    for sweep in made:
        sweep.left -= len(sweep.rows)
    return made


def _lock(lines: TextIO) -> None:
    try:
        fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Misuse(
            f"{lines.name} is being written by another sweep: wait for it, or name another folder"
        ) from None


def _begun(output: Path, resume: bool, planned: set[str]) -> list[Json]:
    """The rows to go on from: those that failed are played again."""
    output.mkdir(parents=True, exist_ok=True)
    found = cells_of(output)
    if strange := [row["cell"] for row in found if row["cell"] not in planned]:
        raise Misuse(
            f"{output} holds another sweep, with {strange[0]}: name another folder, or the configuration it had"
        )
    if found and not resume:
        raise Misuse(f"{output} holds {len(found)} cells of a sweep: resume it, or name another folder")
    found = [row for row in found if row["status"] != "failed"]
    if (output / CELLS).is_file():  # a line that a kill cut off goes
        (output / CELLS).write_text("".join(json.dumps(entry) + "\n" for entry in found))
    return found


def _played(
    left: Sequence[tuple[list[Cell], Path]], until: float | None, processes: int
) -> Iterator[tuple[Path, Json]]:
    """Rows in the order in which their groups end; at most `processes` groups are under way. Rows beside noise come in
    the order of the plan, for which of two cells takes longer follows the clients' examples.
    """
    waiting, running = list(left), dict[Future[list[Json]], Path]()
    turns, ended = list[Future[list[Json]]](), dict[Future[list[Json]], list[tuple[Path, Json]]]()
    # A fork of a process that has loaded torch begins at once; one process per group, so that memory is its own.
    context = get_context("forkserver")
    context.set_forkserver_preload(["fl.federation", "fl.run_parts"])
    before = set(active_children())
    with ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool, _ending_others(before):
        while running or waiting:
            while waiting and len(running) < processes and (until is None or time.monotonic() < until):
                group, output = waiting.pop(0)
                running[future := pool.submit(_group, group, output)] = output
                turns += [future] * group[0].noisy
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                folder = running.pop(future)
                try:
                    ended[future] = [(folder, entry) for entry in future.result()]
                except BrokenProcessPool:
                    raise SecAggError(
                        "a process of the sweep was killed (out of memory?): what was saved is whole; resume it, "
                        "perhaps with fewer processes"
                    ) from None
                if future not in turns:
                    yield from ended.pop(future)
            while turns and turns[0] in ended:
                yield from ended.pop(turns.pop(0))


@contextmanager
def _ending_others(before: set[BaseProcess]) -> Iterator[None]:
    """End the processes that were started meanwhile if anything goes wrong here, an interrupt too: none is waited for,
    for what a cell saved is whole.
    """
    try:
        yield
    except BaseException:
        for child in set(active_children()) - before:
            child.terminate()
        raise


def _group(cells: list[Cell], output: Path) -> list[Json]:
    """Play cells that share one training, the first that is not refused in full."""
    _end_with_parent()
    rows: list[Json] = []
    shared: str | None = None
    for cell in cells:
        try:
            rows.append(_cell(cell, output, shared))
        except Misuse as refusal:
            rows.append(
                {
                    "schema": SCHEMA,
                    "cell": cell.name,
                    "status": "refused",
                    **cell.facts,
                    "reason": str(refusal),
                }
            )
        except Exception as error:  # the user's own loop may raise anything; the other cells go on
            said = type(error).__name__ if cell.noisy else f"{type(error).__name__}: {error}"
            rows.append(
                {"schema": SCHEMA, "cell": cell.name, "status": "failed", **cell.facts, "reason": said}
            )
        else:
            shared = shared or cell.name
    return rows


def _end_with_parent() -> None:
    """A sweep that is killed leaves nobody who plays on in its folders."""
    if (parent := parent_process()) is not None:

        def end() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=end, daemon=True).start()


def _cell(cell: Cell, output: Path, shared: str | None) -> Json:
    """Play one cell in its folder, on from its checkpoint where there is one, and return its row."""
    from fl.checkpoint import begun
    from fl.run_parts import begin, load_parts

    began, folder = time.process_time(), output / cell.name
    rounds = cell.config.rounds if shared is None else min(CHECKED, cell.config.rounds)
    parts = load_parts(replace(cell.config, output=str(folder)))
    goes_on = begin(parts.config, folder, begun(folder))
    federation, stages = parts.federation(folder), set[str]()
    federation.engine.observe = lambda message: (
        stages.add(message.stage) if message.recipient == SERVER else None
    )
    federation.fit(rounds, resume=goes_on)
    if shared is not None and _first_model(folder) != _first_model(output / shared):
        raise SecAggError(f"the model after round 1 is not that of {shared}: the sums are not exact alike")
    # Seconds and memory follow the clients' examples, and whether a session was made at all who was chosen in secret.
    used = {
        "trips": None if federation.coordinator.hidden else len(stages),
        "processor_s": None if cell.noisy else time.process_time() - began,
        "peak_memory": None if cell.noisy else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    return row(cell, output, shared, used)


def _first_model(folder: Path) -> str:
    """The digest of the model after round 1, as the run's record names it."""
    from protocols.record import FILE_NAME

    first = json.loads((folder / FILE_NAME).read_text().splitlines()[0])
    return str(first["body"]["files"]["model.safetensors"])
