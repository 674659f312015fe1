"""What `secagg run` shows: live progress, a line per round, the closing table. No training, no files."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fl.cli import output
from fl.cli.seen import SeenInput
from fl.round import RoundResult
from protocols.guarantee import price_shown, rounded_up

AGAINST_SHORT = {
    "server": "against all",
    "clients": "not against the server",
    "public": "against the public only",
}
COLUMNS = "{:>5}  {:>8}  {:>8}  {:>5}  {:>9}  {:>12}  {:>7}"


class RunView:
    """Prints to standard output for people, to standard error beside --json."""

    def __init__(self, config: Any, as_json: bool, compare: bool) -> None:
        self.config, self.as_json, self.compare = config, as_json, compare
        self.console: Console = output.stderr_console() if as_json else output.stdout_console()
        self._bar: Progress | None = None
        self._shown: tuple[str, ...] = ()
        self._task: Any = None

    def status(self, what: str) -> AbstractContextManager[Any]:
        return self.console.status(what)

    def watch(self, federation: Any) -> SeenInput:
        """Note what the server receives of the first client that answers, beside that client's own vector."""
        seen = SeenInput(federation)
        federation.engine.observe = seen.observe
        return seen

    @contextmanager
    def live(self, rounds: int, title: str = "") -> Iterator[Callable[[RoundResult], None]]:
        """Show a progress bar; the callback prints a line per round."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            self._bar, self._task = bar, bar.add_task(title or "rounds", total=rounds)

            def on_round(result: RoundResult) -> None:
                bar.update(self._task, completed=result.number, description="rounds")
                if not title:
                    self._print_line(bar.console, result)

            yield on_round
        self._bar = None

    def _print_line(self, console: Console, result: RoundResult) -> None:
        """Print a round's line, below a head of two test metrics' names: those that come first."""
        if not self._shown:
            self._shown = (*result.metrics, *(("loss", "accuracy") if not result.metrics else ("", "")))[:2]
            console.print(round_head(self._shown), style="bold", markup=False)
        console.print(round_line(result, self._shown), highlight=False, markup=False)

    def progress(self, what: str, done: int, of: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=f"{what} {done + 1}/{of}")

    def plain_run(self, parts: Any) -> Any:
        """Run the same federation without any privacy layer (same seed, same drop-outs), for comparison."""
        with self.live(parts.config.rounds, "the same without privacy layers") as on_round:
            return parts.federation(None, privacy=[]).fit(parts.config.rounds, on_round=on_round)

    def close(self, result: Any, plain: Any, seen: SeenInput | None, folder: Path) -> None:
        """Print the closing table, what the server saw and the statement, or the JSON object."""
        if self.as_json:
            output.emit_json(
                summary(result, self.config)
                | ({} if plain is None else {"plain": summary(plain, self.config)})
            )
            return
        print_closing(self.console, self.config, result, plain, seen, folder)


def print_closing(
    console: Console, config: Any, result: Any, plain: Any, seen: SeenInput | None, folder: Path
) -> None:
    """Print the closing table, what the server saw of one client, and the statement."""
    console.print()
    console.print(closing_table(result, plain, config))
    if seen is not None and seen.caught:
        console.print()
        console.print(seen.table())
    console.print("\n[bold]Privacy statement[/bold]")
    console.print(result.statement.describe(), highlight=False, markup=False)
    console.print(f"\nFiles: {folder}\nAs a page: secagg report {shlex.quote(str(folder))}", markup=False)


def round_head(shown: tuple[str, ...] = ("loss", "accuracy")) -> str:
    return COLUMNS.format("round", *(name[:8] for name in shown), "asked", "survived", "up/client", "seconds")


def round_line(result: RoundResult, shown: tuple[str, ...] = ("loss", "accuracy")) -> str:
    if result.abandoned:
        return f"{result.number:>5}  abandoned: {result.abandoned}"
    return COLUMNS.format(
        result.number,
        *("" if not name else _number(result.metrics.get(name)) for name in shown),
        "-" if result.withheld else len(result.asked),
        "-" if result.withheld else len(result.survivors),
        "-" if result.withheld else _bytes(result.bytes_up_per_client),
        f"{sum(result.seconds.values()):.2f}" if "train" in result.seconds else "-",
    )


def _number(value: float | str | None, shown: Callable[[float], str] = "{:.4f}".format) -> str:
    return "-" if value is None else f"{value}: protects nobody" if isinstance(value, str) else shown(value)


def _metric(name: str, shown: dict[str, Any]) -> str:
    return _number(shown["metrics"].get(name))


def _price(shown: dict[str, Any]) -> str:
    lines = shown["guarantees"]
    told = [
        f"{_number(g['epsilon'], rounded_up)} per {g['unit']} at {rounded_up(g['delta'])} "
        f"({g['relation']}, {AGAINST_SHORT[g['adversary']]})"
        for g in lines
    ]
    return "\n".join(told) or "none"


def _seconds(shown: dict[str, Any], name: str) -> str:
    seconds = shown["seconds"][name]
    return "-" if seconds is None else f"{seconds:.2f}"


def _bytes(count: float | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def summary(result: Any, config: Any) -> dict[str, Any]:
    """The object that --json prints: bytes are per asked client and round (mean), seconds over the whole run."""
    history = result.history
    withheld = any(entry.withheld for entry in history)
    played = [entry for entry in history if not entry.abandoned] or history

    def mean(name: str) -> float:
        return float(sum(getattr(entry, name) for entry in played)) / len(played)

    return {
        "accuracy": result.metrics.get("accuracy"),
        "loss": result.metrics.get("loss"),
        "metrics": dict(result.metrics),
        "rounds": len(history),
        "clients": (None if withheld else len({name for entry in history for name in entry.asked}))
        if config.clients is None
        else config.clients,
        "survivors_per_round": [None if entry.withheld else len(entry.survivors) for entry in history],
        "bytes_up_per_client": None if withheld else mean("bytes_up_per_client"),
        "bytes_down_per_client": None if withheld else mean("bytes_down_per_client"),
        "seconds": {
            key: sum(told) if (told := [e.seconds[key] for e in history if key in e.seconds]) else None
            for key in ("train", "privacy_client", "privacy_server")
        },
        "epsilon": price_shown(result.guarantees),
        "guarantees": [line.to_json() for line in result.guarantees],
        "statement": result.statement.to_json(),
        "output": config.output,
    }


def closing_table(result: Any, plain: Any, config: Any) -> Table:
    """The run beside the same run without privacy layers."""
    table = Table(title="The run, and what its privacy layers cost")
    table.add_column("")
    names = " + ".join(item if isinstance(item, str) else str(item.get("name")) for item in config.privacy)
    columns = [(names, summary(result, config))]
    if plain is not None:
        columns.append(("no privacy layers", summary(plain, config)))
    for name, _ in columns:
        table.add_column(escape(name), justify="right")
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        *((f"test {name}", partial(_metric, name)) for name in result.metrics),
        ("bytes up per client and round", lambda s: _bytes(s["bytes_up_per_client"])),
        ("bytes down per client and round", lambda s: _bytes(s["bytes_down_per_client"])),
        ("seconds training", lambda s: _seconds(s, "train")),
        ("seconds of layers, clients", lambda s: _seconds(s, "privacy_client")),
        ("seconds of layers, server", lambda s: _seconds(s, "privacy_server")),
        ("epsilon", _price),
    ]
    for title, show in rows:
        table.add_row(title, *(show(s) for _, s in columns))
    return table
