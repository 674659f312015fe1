"""`attacks`: what two textbook attacks get out of a run without layers, and what each layer leaves of that.

The attacks themselves are examples (examples/attacks), loaded from there; here they are repeated, measured and drawn.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from benchmarks import harness
from benchmarks.machine import ROOT

SEEN = {
    "one update, no layer": ("received", ()),
    "one update, secagg+": ("received", ("secagg+",)),
    "one update, ckks": ("received", ("ckks",)),
    "one update, paillier": ("received", ("paillier:key_bits=2048,arrangement=keyholder",)),
    "one update, local-dp": ("private", ("local-dp:epsilon=8,clip=1.0",)),
    "one update, sample-dp": ("private", ("sample-dp:epsilon=8",)),
    "the sum of ten, secagg+": ("released", ("secagg+",)),
    "the noised sum, client-dp": ("released", ("client-dp:epsilon=8", "secagg+")),
    "the noised sum, distributed-dp": ("released", ("distributed-dp:epsilon=8", "secagg+")),
}
"""What an attacker reads -> (how it is read, the layers)."""

TRAINED = {
    "no layer": (),
    "secagg+": ("secagg+",),
    "ckks": ("ckks",),
    "sample-dp": ("sample-dp:epsilon=8",),
    "client-dp": ("client-dp:epsilon=8", "secagg+"),
    "distributed-dp": ("distributed-dp:epsilon=8", "secagg+"),
    "local-dp": ("local-dp:epsilon=8",),
}


def register(app: typer.Typer) -> None:
    app.command("attacks")(run)


def run(
    repeats: Annotated[int, typer.Option(help="Runs of every attack; medians are shown.", min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    save: Annotated[bool, typer.Option(help="keep the result and the picture for the docs")] = False,
) -> None:
    """Gradient inversion and membership inference against no layer and each layer."""
    inversion, membership = _example("gradient_inversion"), _example("membership_inference")
    rows, pictures = _invert(inversion, repeats)
    rows += _infer(membership, repeats)
    if save:
        _draw(pictures)
    outcome = harness.result(
        "fl",
        "attacks",
        arguments={"repeats": repeats},
        figures={"rows": rows, "chance": _chance(inversion)},
        seed=0,
    )
    harness.finish(outcome, as_json=as_json, save=save)


def _example(name: str) -> Any:
    """Load an example by its path: examples are scripts, no package."""
    spec = importlib.util.spec_from_file_location(
        f"attack_{name}", ROOT / "examples" / "attacks" / f"{name}.py"
    )
    if spec is None or spec.loader is None:
        raise RuntimeError(f"examples/attacks/{name}.py is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _layers(names: tuple[str, ...]) -> list[Any]:
    from fl.registry import privacy_layers

    return privacy_layers(names) if names else []


def _invert(attack: Any, repeats: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    pictures: dict[str, Any] = {}
    read: dict[str, Callable[..., Any]] = {
        "received": attack.update_received,
        "private": attack.private_update,
        "released": attack.sum_released,
    }
    for what, (how, names) in SEEN.items():
        print(f"gradient inversion: {what}", file=sys.stderr)
        found = []
        for _ in range(repeats):
            difference, images = read[how](_layers(names))
            guess = attack.invert(difference)
            found.append(attack.likeness(guess, images[0]))
        pictures.setdefault("the image", images[0])
        pictures[what] = guess
        rows.append({"attack": "gradient inversion", "against": what, "strength": statistics.median(found)})
    return rows, pictures


def _infer(attack: Any, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for what, names in TRAINED.items():
        print(f"membership inference: {what}", file=sys.stderr)
        found = []
        for _ in range(repeats if any("dp" in name for name in names) else 1):
            result, members, others = attack.overfitted(_layers(names))
            found.append(attack.advantage(result.model, members, others))
        rows.append({"attack": "membership inference", "against": what, "strength": statistics.median(found)})
    return rows


def _chance(attack: Any) -> dict[str, float]:
    """What guessing gets: the likeness of two different digits, and an area of one half."""
    _, images = attack.federation([])
    pairs = [attack.likeness(a, b) for i, a in enumerate(images) for b in images[i + 1 :]]
    return {"gradient_inversion": statistics.median(pairs), "membership_inference": 0.5}


def _draw(pictures: dict[str, Any]) -> None:
    """The image, and what the attacker makes of what it read."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(2, 5, figsize=(8.5, 3.9), dpi=100, layout="constrained")
    for axes, (title, image) in zip(places.ravel(), pictures.items(), strict=False):
        axes.imshow(image, cmap="gray_r")
        axes.set_title(title.replace(", ", ",\n"), fontsize=8)
        axes.axis("off")
    harness.FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(harness.FIGURES / "fl.attacks.png", metadata={"Software": ""})
    pyplot.close(figure)
