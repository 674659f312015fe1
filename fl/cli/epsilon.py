"""`secagg epsilon`: what a noise multiplier costs, and the noise multiplier that a budget needs."""

from typing import Annotated, Any

import typer

from fl.cli.output import JsonOption, emit_json
from protocols.errors import Misuse


def register(app: typer.Typer) -> None:
    """Adds the command `epsilon`."""
    app.command("epsilon")(epsilon)


def epsilon(
    steps: Annotated[int, typer.Option("--steps", help="Noised steps (or rounds) of the whole run.")],
    delta: Annotated[float, typer.Option("--delta", help="Delta of the statement, between 0 and 1.")],
    noise_multiplier: Annotated[
        float | None,
        typer.Option("--noise-multiplier", help="Deviation of the noise over the clip norm; prints epsilon."),
    ] = None,
    target: Annotated[
        float | None, typer.Option("--epsilon", help="The budget; prints the noise multiplier it needs.")
    ] = None,
    sample_rate: Annotated[
        float, typer.Option("--sample-rate", help="Probability of the secret Poisson sample; 1 for none.")
    ] = 1.0,
    accountant: Annotated[str, typer.Option("--accountant", help="rdp or pld.")] = "pld",
    unit: Annotated[
        str, typer.Option("--unit", help="example or client, whichever is protected.")
    ] = "example",
    relation: Annotated[
        str, typer.Option("--relation", help="zero-out, add-remove or replace.")
    ] = "zero-out",
    as_json: JsonOption = False,
) -> None:
    """Price of Poisson-sampled Gaussian steps, or, from --epsilon, the noise they need."""
    from dp.accountants import accountant as make_accountant
    from dp.calibration import noise_multiplier as calibrated
    from dp.calibration import sampled_gaussian
    from dp.events import Relation, Unit

    if (noise_multiplier is None) == (target is None):
        raise Misuse("expected exactly one of --noise-multiplier and --epsilon")
    if steps < 1:
        raise Misuse(f"expected --steps of at least 1, got {steps}")
    statement: dict[str, Any] = {"unit": _choice(Unit, unit), "relation": _choice(Relation, relation)}
    if noise_multiplier is None:
        assert target is not None
        noise_multiplier = calibrated(
            epsilon=target, delta=delta, steps=steps, rate=sample_rate, accountant=accountant, **statement
        )
    event = sampled_gaussian(noise_multiplier, sample_rate, **statement)
    result: dict[str, object] = {
        "epsilon": make_accountant(accountant).add(event, steps).epsilon(delta),
        "delta": delta,
        "noise_multiplier": noise_multiplier,
        "sample_rate": sample_rate,
        "steps": steps,
        "accountant": accountant,
        "unit": unit,
        "relation": relation,
    }
    if target is not None:
        result["target_epsilon"] = target
    if as_json:
        emit_json(result)
    else:
        print(_sentence(result))


def _choice(kind: Any, value: str) -> Any:
    allowed = [str(item) for item in kind]
    if value not in allowed:
        raise Misuse(f"expected one of {', '.join(allowed)}, got {value!r}")
    return kind(value)


def _sentence(result: dict[str, object]) -> str:
    return (
        f"noise multiplier {result['noise_multiplier']:.6g} over {result['steps']} steps at sampling rate "
        f"{result['sample_rate']:g}: epsilon {result['epsilon']:.4f} at delta {result['delta']:g} "
        f"({result['accountant']}; per {result['unit']}, {result['relation']} neighbours)"
    )
