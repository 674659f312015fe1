"""A report's charts as files, SVG and PNG, by matplotlib (extra `plots`): for papers and slides. What does not belong
here: the page's own charts, which its scripts draw.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fl.report.cells import CellRuns
from protocols.extras import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {
    "epsilon": "epsilon",
    "bytes_up": "bytes that a client sends in a round",
    "seconds": "seconds of the whole run",
}


def draw(cells: Sequence[CellRuns], output: Path) -> list[Path]:
    """Write the metric over each cost and round by round beside `output`, as NAME-COST.svg and .png.

    A cost that no cell tells has no figure. Raises MissingExtra without matplotlib.
    """
    with needs("plots", "secagg report --figures"):
        import matplotlib as mpl

        mpl.use("Agg")
        mpl.rcParams["svg.hashsalt"] = "secagg"  # the same numbers give the same file
        from matplotlib import pyplot
    written: list[Path] = []
    for name, title in (*COSTS.items(), ("rounds", "round")):
        figure, axes = pyplot.subplots(figsize=(6.4, 4.0 + 0.2 * len(cells)), layout="constrained")
        if (_rounds if name == "rounds" else _points)(axes, cells, name):
            axes.set(xlabel=title, ylabel=cells[0].metric)
            axes.grid(visible=True, alpha=0.3)
            figure.legend(loc="outside lower center", fontsize="small")
            for kind in ("svg", "png"):
                path = output.with_name(f"{output.stem}-{name}.{kind}")
                figure.savefig(path, dpi=150)
                written.append(path)
        pyplot.close(figure)
    return written


def _points(axes: "Axes", cells: Sequence[CellRuns], cost: str) -> int:
    """A point per guarantee, with its interval; return how many were drawn."""
    rows = [row for cell in cells for row in cell.facts() if row[cost] is not None]
    for row in rows:
        half = 0.0 if row["low"] is None else row["value"] - row["low"]
        label = row["label"] if row["holds"] == "none" else f"{row['label']}, {row['holds']}"
        axes.errorbar([row[cost]], [row["value"]], [half], marker="o", capsize=3, label=label)
    return len(rows)


def _rounds(axes: "Axes", cells: Sequence[CellRuns], _: str) -> int:
    """A line per run; return how many were drawn."""
    drawn = 0
    for colour, cell in enumerate(cells):
        runs = {row["run"] for row in cell.curve()}
        for at, name in enumerate(sorted(runs)):
            rows = [row for row in cell.curve() if row["run"] == name]
            label = cell.label if not at else None
            axes.plot(
                [row["round"] for row in rows], [row["value"] for row in rows], f"C{colour}.-", label=label
            )
            drawn += 1
    return drawn
