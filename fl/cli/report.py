"""`secagg report`: one HTML file about runs, sweeps, benchmarks and audits. What does not belong here: the page."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fl.cli.output import JsonOption, tell


def report(
    sources: Annotated[
        list[Path], Argument(help="Folders of runs or of sweeps; JSON files of benchmarks and audits.")
    ],
    output: Annotated[Path, Option("--output", "-o", help="The file to write.")] = Path("report.html"),
    metric: Annotated[
        str | None, Option(help="The test metric to compare; unless given the accuracy.")
    ] = None,
    lower_is_better: Annotated[
        bool, Option("--lower-is-better", help="Less of the metric is better, whatever its name.")
    ] = False,
    figures: Annotated[
        bool, Option(help="Also write each chart as SVG and PNG beside the file (extra plots).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML file that opens without a network: results with intervals, costs, who learns what, privacy
    cards, ledgers, verdicts on the records, and the configurations to run again.
    """
    from fl.report import write

    written = write(sources, output, metric, figures, lower_is_better)
    facts = {"output": output, "files": [str(path) for path in written], "bytes": output.stat().st_size}
    tell(facts, as_json, *(f"Written: {path}" for path in written))
