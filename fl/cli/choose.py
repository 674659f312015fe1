"""`secagg choose`: asks what a user has, or takes it as options, and names stacks. What does not belong here: rules."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from fl.choose.answer import Recommendation, to_json
from fl.choose.answer import choose as chosen
from fl.choose.case import DEVICES, PERSONS, TRUST, Case
from fl.choose.stacks import HIDES_FROM
from fl.cli.output import JsonOption, emit_json
from protocols.errors import Misuse


def choose(
    trust: Annotated[
        str | None, Option(help="Whom the clients trust: server, honest, holder or nobody.")
    ] = None,
    clients: Annotated[int | None, Option(min=1, help="Clients in a round.")] = None,
    parameters: Annotated[int | None, Option(min=1, help="Parameters that the model sends.")] = None,
    link: Annotated[float | None, Option(help="Mbit/s that a client sends with.")] = None,
    dropout: Annotated[float | None, Option(help="Share of the clients that leaves during a round.")] = None,
    epsilon: Annotated[str | None, Option(help="Of the whole run; none for no differential privacy.")] = None,
    person: Annotated[str | None, Option(help="What one person is: client, or example of a client.")] = None,
    device: Annotated[str | None, Option(help="Of the clients: server, laptop or phone.")] = None,
    wait: Annotated[
        float, Option(help="Seconds that a client may spend on a round beside its training.")
    ] = 60.0,
    rounds: Annotated[int, Option(min=1, help="Rounds of the whole run.")] = 10,
    data: Annotated[str, Option(help="The TOML's data.")] = "digits",
    output: Annotated[
        Path | None, Option("--output", "-o", help="Folder for a TOML file of each stack.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Name up to three stacks of layers for a case: what each costs and states, why the others fell away, and the TOML
    that runs it. What is not given is asked; with --json nothing is, and what is missing is as usual.
    """
    given = {
        "trust": trust, "clients": clients, "parameters": parameters, "link": link, "dropout": dropout,
        "epsilon": epsilon, "person": person, "device": device,
    }  # fmt: skip
    told = _asked(given, as_json)
    answer = chosen(Case(**told, wait=wait, rounds=rounds), data)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for number, choice in enumerate(answer.choices, 1):
            (output / f"stack-{number}.toml").write_text(choice.toml)
    if as_json:
        emit_json(to_json(answer))
    else:
        _show(answer, output)


def _asked(given: Mapping[str, Any], silent: bool) -> dict[str, Any]:
    """The answers: those given, and those of a prompt for each of the others."""
    choices = {"trust": tuple(TRUST), "person": PERSONS, "device": tuple(DEVICES)}
    told: dict[str, Any] = {}
    for field in Case.questions():
        if field.name not in given:
            continue
        answer = given[field.name]
        if answer is None and not silent and not (field.name == "person" and told["epsilon"] is None):
            if field.name == "trust":
                for name, words in TRUST.items():
                    typer.echo(f"  {name}: {words}")
            among = f" ({', '.join(choices[field.name])})" if field.name in choices else ""
            question = field.metadata["help"] + among
            usual = "none" if field.default is None else field.default
            try:
                answer = typer.prompt(question, default=usual, type=str if field.name == "epsilon" else None)
            except typer.Abort:
                if sys.stdin.isatty():
                    raise
                typer.echo()
                raise Misuse(
                    f"nobody is there to answer: give --{field.name}, or --json, which asks nothing and takes the usual"
                ) from None
        told[field.name] = (
            field.default if answer is None else _number(answer) if field.name == "epsilon" else answer
        )
    return told


def _number(text: str) -> float | None:
    try:
        return None if text == "none" else float(text)
    except ValueError:
        raise Misuse(f"epsilon: expected a number or none, got {text!r}") from None


def _show(answer: Recommendation, output: Path | None) -> None:
    for number, choice in enumerate(answer.choices, 1):
        cost = choice.cost
        print(f"{number}. {choice.stack.name}")
        print(f"   accuracy: about {cost.kept:.0%} of that without noise")
        if choice.warning:
            print(f"   {choice.warning}")
        sent = f"{cost.bytes_up / 1e6:.3g} MB a round ({cost.sending:.2g} s on this link)"
        trips = "1 trip" if cost.trips == 1 else f"{cost.trips} trips"
        print(
            f"   a client sends {sent} in {trips} and computes for {cost.seconds:.2g} s beside its training"
        )
        for line in choice.statement:
            print(f"   {line}")
        print()
    print("The others fell away:")
    for why in dict.fromkeys(answer.fallen.values()):
        print(f"   {why}: {_together([name for name, its in answer.fallen.items() if its == why])}")
    if output is not None:
        print(f"\nTo run the first: secagg run {output / 'stack-1.toml'}")
    else:
        print(
            "\nTo run the first, save this as choice.toml (or give --output FOLDER), then: secagg run choice.toml\n"
        )
        print(answer.choices[0].toml)


def _together(stacks: list[str]) -> str:
    """Names of stacks, those of one layer in one phrase."""
    by: dict[str, list[str]] = {}
    for name in stacks:
        layer, _, total = name.partition(" behind ")
        by.setdefault(layer, []).append(total)
    every = [layer for layer, totals in by.items() if len(totals) == len(HIDES_FROM)]
    rest = [f"{layer} behind {', '.join(totals)}" for layer, totals in by.items() if layer not in every]
    return "; ".join([*([f"{', '.join(every)} behind any sum"] if every else []), *rest])
