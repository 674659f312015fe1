"""`secagg epsilon`: what a noise multiplier costs, which one a budget needs, and what that does to a run."""

from typing import Annotated, Any

import typer
from click.core import ParameterSource
from typer import Option

from fl.cli.output import JsonOption, tell
from protocols.errors import Misuse, require

SUGGESTS = {"population", "cohort", "dimension", "clip", "signal", "layer", "amplify"}
BANDED = {"separation", "participations", "bands", "momentum"}
SAMPLED = {"sample_rate"}


def epsilon(
    context: typer.Context,
    steps: Annotated[int, Option("--steps", "--rounds", help="Noised steps (or rounds) of the whole run.")],
    delta: Annotated[float, Option("--delta", help="Delta of the statement, between 0 and 1.")],
    noise_multiplier: Annotated[
        float | None,
        Option("--noise-multiplier", help="Deviation of the noise over the clip norm; prints epsilon."),
    ] = None,
    target: Annotated[
        float | None, Option("--epsilon", help="The budget; prints the noise multiplier it needs.")
    ] = None,
    sample_rate: Annotated[
        float, Option("--sample-rate", help="Probability of the secret Poisson sample; 1 for none.")
    ] = 1.0,
    accountant: Annotated[
        str | None,
        Option("--accountant", help="rdp or pld (default: pld; --suggest: rdp, as layers have it)."),
    ] = None,
    unit: Annotated[str, Option("--unit", help="example or client, whichever is protected.")] = "example",
    relation: Annotated[str, Option("--relation", help="zero-out, add-remove or replace.")] = "zero-out",
    suggest: Annotated[
        bool, Option("--suggest", help="What client-level noise for --epsilon does to the mean update.")
    ] = False,
    population: Annotated[int | None, Option(help="--suggest: clients of the federation.")] = None,
    cohort: Annotated[int | None, Option(help="--suggest: clients of a round (default: all).")] = None,
    dimension: Annotated[int | None, Option(help="--suggest: parameters that are sent.")] = None,
    clip: Annotated[float, Option(help="--suggest: L2 norm of an update.")] = 1.0,
    signal: Annotated[
        float | None, Option(help="--suggest: L2 norm of the mean update (default: the clip, its largest).")
    ] = None,
    layer: Annotated[str, Option(help="--suggest: client-dp, distributed-dp or local-dp.")] = "client-dp",
    amplify: Annotated[
        bool, Option("--amplify", help="--suggest: count on a secret choice of clients (client-dp).")
    ] = False,
    banded: Annotated[
        bool, Option("--banded", help="Correlated noise (banded C) over --rounds rows, no sampling.")
    ] = False,
    separation: Annotated[
        int | None, Option(help="--banded: rows between two participations, at least.")
    ] = None,
    participations: Annotated[
        int | None, Option(help="--banded: of one unit, at most (default: as many as fit).")
    ] = None,
    bands: Annotated[int | None, Option(help="--banded: of C (default: the separation).")] = None,
    momentum: Annotated[float, Option(help="--banded: of the server, to weight C by.")] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Price of Poisson-sampled Gaussian steps, or, from --epsilon, the noise they need. With --suggest: that noise on
    the mean update of a run beside its norm, and how many clients would bring it below. With --banded: rows of
    correlated noise, and what it gains.
    """
    if suggest:
        _require_read(context, "--suggest", BANDED | SAMPLED | {"banded", "unit", "relation"})
        if target is None or population is None or dimension is None or noise_multiplier is not None:
            raise Misuse("--suggest needs --epsilon, --rounds, --delta, --population and --dimension")
        from dp.suggestion import suggest as suggested

        found = suggested(
            population=population,
            cohort=population if cohort is None else cohort,
            rounds=steps,
            dimension=dimension,
            epsilon=target,
            delta=delta,
            clip=clip,
            signal=signal,
            layer=layer,
            amplify=amplify,
            accountant=accountant or "rdp",
        )
        tell(found.to_json(), as_json, str(found))
        return
    accountant = accountant or "pld"
    from dp.accountants import accountant as make_accountant
    from dp.calibration import noise_multiplier as calibrated
    from dp.calibration import sampled_gaussian
    from dp.events import Relation, Unit

    unread = SUGGESTS | (SAMPLED if banded else BANDED)
    _require_read(context, "--banded" if banded else "secagg epsilon without --suggest or --banded", unread)
    if (noise_multiplier is None) == (target is None):
        raise Misuse("expected exactly one of --noise-multiplier and --epsilon")
    require(steps >= 1, "--steps of at least 1", steps)
    statement: dict[str, Any] = {"unit": _choice(Unit, unit), "relation": _choice(Relation, relation)}
    if banded:
        from dp.correlated.price import Banded, sentence

        if separation is None:
            raise Misuse("--banded needs --separation")
        plan = Banded(steps, separation, participations, bands, momentum)
        if noise_multiplier is None:
            assert target is not None
            noise_multiplier = plan.multiplier(target, delta, accountant, **statement)
        account = make_accountant(accountant).add(plan.event(noise_multiplier, **statement))
        priced = {"epsilon": account.epsilon(delta), "delta": delta, "noise_multiplier": noise_multiplier}
        named = {"accountant": accountant, "unit": unit, "relation": relation}
        whole = {**priced, **plan.to_json(), **named}
        tell(whole, as_json, sentence(whole))
        return
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
    tell(result, as_json, _sentence(result))


def _require_read(context: typer.Context, mode: str, unread: set[str]) -> None:
    """Raises Misuse for an option that was given and would say nothing."""
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name in unread:
            raise Misuse(f"{mode} does not read {option.opts[0]}: leave it out")


def _choice(kind: Any, value: str) -> Any:
    allowed = [str(item) for item in kind]
    require(value in allowed, f"one of {', '.join(allowed)}", f"{value!r}")
    return kind(value)


def _sentence(result: dict[str, Any]) -> str:
    from protocols.guarantee import rounded_up as up

    return (
        f"noise multiplier {up(result['noise_multiplier'], 6)} over {result['steps']} steps at sampling rate "
        f"{result['sample_rate']:g}: epsilon {up(result['epsilon'])} at delta {up(result['delta'])} "
        f"({result['accountant']}; per {result['unit']}, {result['relation']} neighbours)"
    )
