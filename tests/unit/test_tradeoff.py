"""Trade-off runs: which cells there are and when, one training for exact sums, rows that say what a folder says, and a
sweep that was cut off goes on.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fl.cli import invoke
from fl.cli.tradeoff import _progress
from fl.report.cells import cells
from fl.report.folders import cells_of, read
from fl.run_config import RunConfig
from fl.tradeoff import tradeoff
from fl.tradeoff.sweep import Sweep, axes, coarse_to_fine, groups
from protocols.errors import Misuse

BASE: dict[str, Any] = {"data": "digits", "model": "logistic", "clients": 5, "rounds": 2, "local_epochs": 1}
AXES: dict[str, Any] = {
    "layers": ("none", "client-dp"),
    "epsilons": ("none", 8.0),
    "sums": ("none", "secagg+", "ckks"),
    "seeds": 1,
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    tradeoff(BASE, folder, processes=1, **AXES)
    return folder


def test_one_seed_of_everything_comes_before_the_next() -> None:
    planned = groups(RunConfig(**BASE), axes({**AXES, "seeds": 2}))
    assert [[cell.seed for cell in group] for group in planned] == [
        [0] * 3,
        [0],
        [0],
        [0],
        [1] * 3,
        [1],
        [1],
        [1],
    ]
    assert [cell.config.privacy for cell in planned[0]] == [("none",), ("secagg+",), ("ckks",)]
    assert planned[2][0].config.privacy == ("client-dp:epsilon=8.0", "secagg+")
    names = [cell.name for group in planned for cell in group]
    assert len(set(names)) == len(names)


def test_exact_sums_share_one_training_and_pay_their_own_cost(sweep: Path) -> None:
    plain, masked, ckks = (row for row in cells_of(sweep) if row["layer"] == "none")
    assert (plain["shared"], masked["shared"], ckks["shared"]) == (None, plain["cell"], plain["cell"])
    assert plain["metrics"] == masked["metrics"] == ckks["metrics"]
    assert plain["bytes_up_per_client"] < masked["bytes_up_per_client"] < ckks["bytes_up_per_client"]
    assert plain["trips"] == 1
    assert min(masked["trips"], ckks["trips"]) > 2
    shown = [cell for cell in cells(read([sweep]).runs) if "client-dp" not in cell.first.layers]
    assert [cell.mean()[0] for cell in shown] == [plain["metrics"]["accuracy"]] * 3


def test_a_row_says_what_the_folder_says(sweep: Path) -> None:
    (row,) = (row for row in cells_of(sweep) if row["layer"] == "client-dp" and row["sum"] == "none")
    told = json.loads((sweep / row["cell"] / "statement.json").read_text())
    last = json.loads((sweep / row["cell"] / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["guarantees"] == told["guarantees"]
    assert row["metrics"]["accuracy"] == last["accuracy"]
    assert row["shared"] is None
    assert row["epsilons"]["pld"][0] < row["epsilons"]["rdp"][0] <= 8, "PLD is the tighter of the two"
    assert "train" not in row["seconds_per_round"], "how long a client trains follows its examples"
    assert (row["processor_s"], row["peak_memory"]) == (None, None)
    plain = next(row for row in cells_of(sweep) if row["layer"] == "none")
    assert plain["peak_memory"] > 10**7
    assert plain["processor_s"] > 0


def test_a_cut_off_sweep_goes_on_with_what_is_left(sweep: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    first = tradeoff(BASE, folder, processes=1, minutes=0, **AXES)
    assert (first.rows, first.left) == ([], 6)
    lines = (sweep / "cells.jsonl").read_text().splitlines()
    for row in map(json.loads, lines[:5]):
        (folder / row["cell"]).symlink_to(sweep / row["cell"])
    (folder / "cells.jsonl").write_text("\n".join(lines[:5]) + "\n" + lines[5][:40])
    seen: list[str] = []
    done = tradeoff(BASE, folder, resume=True, on_cell=lambda at, of, row: seen.append(row["cell"]), **AXES)
    assert len(seen) == 1
    assert [row["cell"] for row in done.rows] == [json.loads(line)["cell"] for line in lines]
    assert len(cells_of(folder)) == 6


def test_a_report_leaves_out_the_cell_at_work(sweep: Path, tmp_path: Path) -> None:
    rows = cells_of(sweep)
    for row in rows:
        (tmp_path / row["cell"]).symlink_to(sweep / row["cell"])
    (tmp_path / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    assert len(read([tmp_path]).runs) == len(rows) - 1


def test_sums_share_no_training_where_clients_are_left_out() -> None:
    for named in ({"sampling": "poisson", "fraction": 0.5}, {"fraction": 0.5}):
        planned = groups(RunConfig(**BASE, **named), axes(AXES))
        assert all(len(group) == 1 for group in planned)
    assert all(len(group) == 1 for group in groups(RunConfig(**BASE), axes({**AXES, "dropouts": (0.2,)})))


def test_a_sweep_goes_on_with_its_own_cells_alone_and_tries_again_what_failed(
    sweep: Path, tmp_path: Path
) -> None:
    with pytest.raises(Misuse, match="holds another sweep"):
        tradeoff({**BASE, "rounds": 1}, sweep, resume=True, minutes=0, **AXES)
    rows = [json.loads(line) for line in (sweep / "cells.jsonl").read_text().splitlines()]
    rows[-1] = {**rows[-1], "status": "failed", "reason": "a machine's"}
    (tmp_path / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tradeoff(BASE, tmp_path, resume=True, minutes=0, **AXES).left == 1


def test_a_cell_tells_nothing_that_follows_who_was_chosen_in_secret(tmp_path: Path) -> None:
    """Whether a session was made at all, and the text of an error, stood in its row."""
    base = {**BASE, "sampling": "poisson"}
    named: dict[str, Any] = {"layers": ("client-dp:amplify=true",), "epsilons": (8.0,), "sums": ("none",)}
    nobody, everybody = (
        tradeoff({**base, "fraction": rate}, tmp_path / str(rate), processes=1, seeds=1, **named).rows[0]
        for rate in (1e-12, 1 - 1e-12)
    )
    follow_the_rate = {"cell", "metrics", "guarantees", "epsilons", "trust"}
    assert {name for name in nobody if nobody[name] != everybody[name]} <= follow_the_rate
    assert nobody["status"] == "done"
    wrong = {**base, "fraction": 1 - 1e-12, "train": "tests.unit.test_tradeoff:broken"}
    (failed,) = tradeoff(wrong, tmp_path / "failed", processes=1, seeds=1, **named).rows
    assert (failed["status"], failed["reason"]) == ("failed", "ValueError")


def test_a_combination_that_layers_refuse_is_a_row_with_its_reason(tmp_path: Path) -> None:
    made = tradeoff(
        BASE, tmp_path, layers=("none",), epsilons=("none",), sums=("none",), strategies=("fedavg", "krum"),
        seeds=1, processes=1,
    )  # fmt: skip
    done, refused = made.rows
    assert (done["status"], refused["status"]) == ("done", "refused")
    assert "single updates" in refused["reason"]


def test_a_loop_that_fails_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    made = tradeoff(
        {**BASE, "train": "tests.unit.test_tradeoff:broken"}, tmp_path, processes=1,
        layers=("none",), epsilons=("none",), sums=("none",), seeds=2,
    )  # fmt: skip
    assert [(row["status"], row["reason"]) for row in made.rows] == [
        ("failed", "ValueError: no such column")
    ] * 2


def broken(model: Any, loader: Any, optimizer: Any) -> None:
    raise ValueError("no such column")


@pytest.mark.parametrize(
    "given, said",
    [
        ({"seeds": 0}, "seeds"),
        ({"epsilons": [-1.0]}, "above 0"),
        ({"sums": []}, "at least one"),
        ({"layers": ["none", "none"]}, "different"),
        ({"layer": ["none"]}, "unknown key 'layer'"),
    ],
)
def test_axes_that_make_no_sense_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Misuse, match=said):
        axes(given)


def test_the_command_plays_a_file_and_refuses_a_folder_in_use(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "sweep.toml"
    config.write_text('data = "digits"\n[tradeoff]\nseeds = 1\n')
    assert invoke(["tradeoff", str(config), "--output", str(sweep)]) == 2
    assert "holds another sweep" in capsys.readouterr().err
    with pytest.raises(Misuse, match="resume it, or name another folder"):
        tradeoff(BASE, sweep, minutes=0, **AXES)
    config.write_text('data = "digits"\n[tradeof]\nseeds = 1\n')
    assert invoke(["tradeoff", str(config), "--output", str(tmp_path / "x")]) == 2
    assert "unknown key 'tradeof'" in capsys.readouterr().err
    config.write_text(
        'data = "digits"\nmodel = "logistic"\nclients = 4\nrounds = 1\n[tradeoff]\nseeds = 1\n'
        'layers = ["none"]\nepsilons = ["none"]\n'
    )
    assert invoke(["tradeoff", str(config), "--output", str(tmp_path / "y"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in told["rows"]] == ["done", "done"]
    assert told["left"] == 0


def test_one_seed_of_several_sweeps_comes_before_the_next() -> None:
    sweeps = [Sweep(RunConfig(**{**BASE, "seed": seed}), axes({**AXES, "seeds": 2})) for seed in (0, 7)]
    order = [(at, group[0].seed - 7 * at, group[0].epsilon) for at, group in coarse_to_fine(sweeps)]
    kinds = [("none", 1), (8.0, 3)]
    assert order == [
        (at, seed, epsilon)
        for seed in range(2)
        for epsilon, times in kinds
        for at in range(2)
        for _ in range(times)
    ]


def test_what_a_search_found_is_used_where_it_was_found_and_its_price_stands_in_the_row(
    tmp_path: Path,
) -> None:
    tuned = {"layer": "client-dp", "epsilon": 8.0, "clip": 0.25, "learning_rate": 0.5, "rounds": 1}
    told = {"data": "elsewhere", "trials": 5, "metric": "accuracy", "value": 0.5}
    own = {"sums": ("none",), "private_sums": ("secagg+",), "tuned": ({**tuned, "search": told},)}
    plain, *private = groups(RunConfig(**BASE), axes({**AXES, "epsilons": ("none", 8.0, 4.0, 16.0), **own}))
    assert [cell.config.privacy for cell in plain] == [("none",)]
    assert [group[0].config.privacy for group in private] == [
        ("client-dp:epsilon=8.0,clip=0.25", "secagg+"),
        ("client-dp:epsilon=4.0,clip=0.25", "secagg+"),  # not searched: the next larger epsilon's
        ("client-dp:epsilon=16.0", "secagg+"),
    ]
    assert [(group[0].config.rounds, group[0].config.learning_rate) for group in private] == [
        (1, 0.5),
        (1, 0.5),
        (2, None),
    ]
    made = tradeoff(BASE, tmp_path, processes=1, **{**AXES, **own, "layers": ("client-dp",)})
    (row,) = made.rows
    assert row["search"] | told == row["search"]
    assert 8 >= row["guarantees"][0]["epsilon"] < row["search"]["best"]
    assert row["search"]["all"] is None, "the table does not say what its trials spent"
    (table,) = (table for table in read([tmp_path]).tables if "search" in table.title)
    assert [table.rows[0][name] for name in ("searched on", "apart from", "trials", "all trials")] == [
        "elsewhere",
        "unknown",
        "unknown",
        "unknown",
    ]
    with pytest.raises(Misuse, match="keys of a run"):
        axes({"tuned": [{**tuned, "rate": 1.0}]})


def test_rows_beside_noise_come_in_the_order_of_the_plan_not_of_who_ends_first(tmp_path: Path) -> None:
    tuned = tuple({"layer": "client-dp", "epsilon": e, "rounds": n} for e, n in ((8.0, 40), (4.0, 1)))
    own = {"layers": ("client-dp",), "epsilons": (8.0, 4.0), "sums": ("none",), "private_sums": ("none",)}
    made = tradeoff(BASE, tmp_path, processes=2, **{**AXES, **own, "tuned": tuned})
    assert [(row["epsilon"], row["status"]) for row in made.rows] == [(8.0, "done"), (4.0, "done")]
    assert [row["epsilon"] for row in cells_of(tmp_path)] == [8.0, 4.0]


def test_an_interrupt_of_the_sweep_alone_ends_the_cells_at_work(tmp_path: Path) -> None:
    """The cells would train for ten minutes; nobody but the parent is told."""
    config = tmp_path / "sweep.toml"
    config.write_text(
        'data = "digits"\nclients = 4\nmodel = "logistic"\ntrain = "tests.unit.test_tradeoff:slow"\n'
        '[tradeoff]\nlayers = ["none"]\nepsilons = ["none"]\nsums = ["none"]\nseeds = 2\n'
    )
    command = [sys.executable, "-c", INTERRUPTIBLE, "tradeoff", str(config), "-o", str(tmp_path / "out")]
    environment, silent = {**os.environ, "SLOW": str(tmp_path)}, subprocess.DEVNULL
    with subprocess.Popen(
        [*command, "--processes", "2"], start_new_session=True, stdout=silent, stderr=silent, env=environment
    ) as started:
        while not list(tmp_path.glob("at-work-*")):
            time.sleep(0.1)
        os.kill(started.pid, signal.SIGINT)
        assert started.wait(timeout=300) != 0
    for path in tmp_path.glob("at-work-*"):
        assert not _runs(int(path.name.removeprefix("at-work-")))


INTERRUPTIBLE = "import signal; signal.signal(2, signal.default_int_handler); import fl.cli; fl.cli.main()"


def slow(model: Any, loader: Any, optimizer: Any) -> None:
    (Path(os.environ["SLOW"]) / f"at-work-{os.getpid()}").touch()
    time.sleep(600)


def _runs(process: int) -> bool:
    """Whether a process is there, and no zombie, within a minute of its end."""
    for _ in range(600):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.1)
    return True


def test_rows_are_a_frame(sweep: Path) -> None:
    pytest.importorskip("pandas")
    from fl.tradeoff import Tradeoff

    frame = Tradeoff(sweep, cells_of(sweep)).frame()
    assert len(frame) == 6
    assert "metrics.accuracy" in frame


def test_a_stop_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, sweep = tmp_path / "sweep.toml", tmp_path / "sweep"
    config.write_text('data = "digits"\n[tradeoff]\nlayers = ["none"]\nepsilons = ["none"]\n')
    assert invoke(["tradeoff", str(config), "--output", str(sweep), "--minutes", "0"]) == 1
    told = capsys.readouterr().out
    assert "0 of 6 cells have a result, 6 are left" in told
    assert f"To go on: secagg tradeoff {config} --output {sweep} --resume" in told


def test_the_estimate_counts_all_cells_that_were_played(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 60.0, 60.0])  # two cells that share a training end in one instant
    monkeypatch.setattr("fl.cli.tradeoff.time", SimpleNamespace(monotonic=lambda: next(now)))
    row = {"cell": "one", "status": "done", "metrics": {"accuracy": 0.5}}
    with _progress(False, 10) as told:
        told(3, 10, row)  # a sweep that is resumed: two were there
        told(4, 10, row)
    assert "about 0:03:00 left" in capsys.readouterr().out
