"""Figures for the docs: one look for all suites. What is drawn belongs in the suite; matplotlib is imported
here only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import FIGURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = tuple[Sequence[float], Sequence[float]]


def draw(name: str, paint: Callable[[Axes], None], *, directory: Path = FIGURES) -> Path:
    """Let ``paint`` fill one pair of axes and write it to ``<name>.png`` (small: 640 x 400 points of 100
    dpi).
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), dpi=100, layout="constrained")
    axes.grid(visible=True, alpha=0.3)
    paint(axes)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.png"
    # A fixed Software field: the same numbers give the same file, so that a plot changes only when its
    # results do.
    figure.savefig(path, metadata={"Software": ""})
    pyplot.close(figure)
    return path


def lines(
    name: str,
    series: Mapping[str, Line],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    directory: Path = FIGURES,
) -> Path:
    """One line with markers per entry of ``series`` (label to x and y values); axes may be logarithmic."""

    def paint(axes: Axes) -> None:
        for label, (horizontal, vertical) in series.items():
            axes.plot(horizontal, vertical, marker="o", markersize=4, label=label)
        axes.set(xlabel=x, ylabel=y, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        if len(series) > 1:
            axes.legend()

    return draw(name, paint, directory=directory)
