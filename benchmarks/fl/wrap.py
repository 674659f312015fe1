"""`wrap`: what each adapter costs: lines changed in its pair of examples, processor time over the bare loop, layers.

Four clients, models of a million parameters and more, one thread, a process per loop. The bare loop takes the same
local steps from the same start, one client after the other, and averages nothing; it is timed right after each round
with masks, so that a drifting machine slows both alike. The first round of both (kernels load, plans are made) is not
counted. Layers are tried with a small model of the same kind: one round each.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from typing import Annotated, Any

import typer

from benchmarks import harness
from benchmarks.diffs import Pair
from benchmarks.machine import ROOT


def register(app: typer.Typer) -> None:
    """Adds the command to the suite."""
    app.command("wrap")(wrap)


def wrap(
    loops: Annotated[list[str] | None, typer.Option("--loop", help="loops to measure; repeatable")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="timed rounds, after one untimed")] = 2,
    child: Annotated[str, typer.Option(hidden=True)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    save: Annotated[bool, typer.Option(help="keep the result under docs/results")] = False,
) -> None:
    """Lines changed, overhead and layers of every adapter; the kept rows of loops that are not named stay."""
    if child:
        print(json.dumps(_measure(child, rounds)))
        return
    rows = {row["loop"]: row for kept in harness.read_all("fl.wrap") for row in kept.figures["rows"]}
    for name in loops or ("torch", "trainer", "lightning", "sklearn", "numpy"):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "fl", "wrap", "--child", name, "--rounds", str(rounds)],
            stdout=subprocess.PIPE,
            check=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        rows[name] = json.loads(done.stdout.decode().splitlines()[-1])
        print(f"{name}: {rows[name]['over_bare']:.2f} of the bare loop", file=sys.stderr)
    arguments = {"clients": 4, "rounds": rounds, "stack": "secagg+"}
    outcome = harness.result("fl", "wrap", arguments=arguments, figures={"rows": list(rows.values())})
    harness.finish(outcome, as_json=as_json, save=save)


def _measure(name: str, rounds: int) -> dict[str, Any]:
    """One loop's figures, in this process."""
    import torch

    from benchmarks.fl.wrapped import LOOPS
    from secagg import SecAggPlus

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    make, large, small = LOOPS[name]
    loop = make(*large)
    federation = loop.federate(privacy=[SecAggPlus()])
    ours: list[float] = []
    bare: list[float] = []
    at = time.process_time()

    def after(result: Any) -> None:
        nonlocal at
        if result.abandoned:
            raise RuntimeError(f"{name}: the round was abandoned: {result.abandoned}")
        ours.append(time.process_time() - at)
        at = time.process_time()
        loop.bare()
        bare.append(time.process_time() - at)
        at = time.process_time()

    federation.fit(rounds=rounds + 1, on_round=after)
    tried = {layer: _tried(make(*small).federate, privacy) for layer, privacy in _stacks().items()}
    return {
        "loop": name,
        "function": loop.function,
        "changed": Pair(f"examples/adapters/{name}").changed,
        "parameters": federation.coordinator.schema.dimension,
        "over_bare": statistics.median(o / b for o, b in zip(ours[1:], bare[1:], strict=True)),
        "round_s": statistics.median(ours[1:]),
        "bare_round_s": statistics.median(bare[1:]),
        "layers": ", ".join(layer for layer, refused in tried.items() if refused is None),
        "refused": {layer: refused for layer, refused in tried.items() if refused is not None},
    }


def _tried(federate: Any, privacy: list[Any]) -> str | None:
    """None where a round with these layers ends with a total, else why not."""
    from protocols.errors import SecAggError

    try:
        (result,) = federate(privacy=privacy, range=8.0).fit(rounds=1).history
    except SecAggError as error:
        return str(error)
    return result.abandoned or None


def _stacks() -> dict[str, list[Any]]:
    from dp import ClientDP, DistributedDP, LocalDP, SampleDP
    from he import CKKSSum
    from secagg import SecAgg, SecAggPlus
    from tests.paillier_fixed import keyholder

    noise: dict[str, Any] = {"noise_multiplier": 1.0, "delta": 1e-3}
    return {
        "secagg": [SecAgg()],
        "secagg+": [SecAggPlus()],
        "paillier": [keyholder()],
        "ckks": [CKKSSum()],
        "client-dp": [ClientDP(clip=1.0, **noise), SecAggPlus()],
        "distributed-dp": [DistributedDP(clip=1.0, **noise), SecAggPlus()],
        "local-dp": [LocalDP(clip=1.0, **noise), SecAggPlus()],
        "sample-dp": [SampleDP(clip=1.0, **noise), SecAggPlus()],
    }
