"""The sweeps' cells as rows, and the picture of them. What does not belong here: measuring."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from fl.report.folders import cells_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "digits": "digits, 50 clients",
    "fashion-mnist": "Fashion-MNIST, 50 clients",
    "femnist": "FEMNIST, 50 writers",
}
LAYERS = {
    "client-dp": "client-dp: a client, the server trusted",
    "distributed-dp": "distributed-dp: a client, behind a secure sum",
    "local-dp": "local-dp: a client, nobody trusted",
    "sample-dp": "sample-dp: an example, nobody trusted",
}
"""In the picture's order and words: guarantees of two kinds are no points of one scale."""
KEPT = ("bytes_up_per_client", "bytes_down_per_client", "trips", "processor_s", "peak_memory")


def rows(sweeps: Path) -> list[dict[str, Any]]:
    """A row for each data set, layer, epsilon and sum: the mean over seeds, its 95 % interval, the mean cost."""
    from scipy.stats import t

    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for name in TITLES:
        for cell in cells_of(sweeps / name):
            if cell["status"] == "done":
                cells[name, cell["layer"].partition(":")[0], cell["epsilon"], cell["sum"]].append(cell)
    found = []
    for (name, layer, epsilon, total), runs in cells.items():
        scores = [run["metrics"]["accuracy"] for run in runs]
        half = math.nan
        if len(runs) > 1:
            half = t.ppf(0.975, len(runs) - 1) * statistics.stdev(scores) / math.sqrt(len(runs))
        held = runs[0]["guarantees"]
        row = {
            "data": name,
            "layer": layer,
            "epsilon": None if epsilon == "none" else epsilon,
            "stated": max((line["epsilon"] for run in runs for line in run["guarantees"]), default=None),
            "delta": held[0]["delta"] if held else None,
            "unit": held[0]["unit"] if held else None,
            "adversary": held[0]["adversary"] if held else None,
            "sum": total,
            "seeds": len(runs),
            "accuracy": statistics.mean(scores),
            "low": None if math.isnan(half) else max(0.0, statistics.mean(scores) - half),
            "high": None if math.isnan(half) else min(1.0, statistics.mean(scores) + half),
        }
        found.append(row | {key: _mean([run[key] for run in runs]) for key in KEPT})
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def draw(path: Path = harness.FIGURES / "tradeoff.svg") -> Path:
    """Draw accuracy over epsilon, a panel for each data set, from the kept result."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {
        "svg.hashsalt": "secagg",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
    }
    from matplotlib import pyplot

    (kept,) = harness.read_all("tradeoff.stacks")
    shown = {
        name: title
        for name, title in TITLES.items()
        if any(row["data"] == name for row in kept.figures["rows"])
    }
    size = (3.2 * max(2, len(shown)), 3.6)
    figure, grid = pyplot.subplots(1, len(shown), figsize=size, layout="constrained", squeeze=False)
    panels = grid[0]
    for axes, (name, title) in zip(panels, shown.items(), strict=True):
        _panel(axes, [row for row in kept.figures["rows"] if row["data"] == name])
        axes.set(
            title=title, xlabel="epsilon", xscale="log", xticks=[1, 2, 4, 8], xticklabels=["1", "2", "4", "8"]
        )
        axes.minorticks_off()
    panels[0].set_ylabel("accuracy, per cent")
    handles, labels = panels[0].get_legend_handles_labels()
    columns = 3 if len(shown) > 2 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    figure.patch.set_facecolor("white")  # beside text of any colour
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return path


def _panel(axes: Axes, listed: list[dict[str, Any]]) -> None:
    for row in listed:
        if row["epsilon"] is None:
            axes.axhline(100 * row["accuracy"], color="black", linestyle="--", linewidth=1, label="no noise")
            break
    for colour, marker, layer in zip(("C0", "C1", "C2", "C3"), "osD^", LAYERS, strict=True):
        mine = sorted((row for row in listed if row["layer"] == layer), key=lambda row: float(row["epsilon"]))
        spread = [0.0 if row["low"] is None else 100 * (row["accuracy"] - row["low"]) for row in mine]
        x, y = [row["epsilon"] for row in mine], [100 * row["accuracy"] for row in mine]
        axes.errorbar(
            x,
            y,
            spread,
            marker=marker,
            markersize=4,
            capsize=2,
            linewidth=1.2,
            color=colour,
            label=LAYERS[layer],
        )
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
