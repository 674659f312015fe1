"""What is kept of a cell: a line of cells.jsonl, and what a sweep gives back. The schema is in docs/tradeoff.md."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from dp.accountants import ACCOUNTANTS
from dp.event_json import from_fact
from dp.events import UnknownEvent
from fl.account import Account
from fl.registry import privacy_layers
from fl.report.folders import Json, read_run
from fl.tradeoff.price import price
from fl.tradeoff.sweep import Cell
from protocols.errors import Misuse
from protocols.extras import needs
from protocols.layers import PrivacyLayer
from protocols.statement import PrivacyEvent

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = "secagg-tradeoff/1"


@dataclass
class Tradeoff:
    """A sweep's rows, and its folder. left: cells that were not played, for time."""

    folder: Path
    rows: list[Json] = field(default_factory=list)
    left: int = 0

    def frame(self) -> "DataFrame":
        """Return the rows as a pandas DataFrame, nested names joined by dots. Raises MissingExtra without pandas."""
        with needs("plots", "Tradeoff.frame"):
            import pandas
        return pandas.json_normalize(self.rows)


def row(cell: Cell, folder: Path, shared: str | None, used: Mapping[str, float | None]) -> Json:
    """A cell's line, from its run's folder; of a cell that shares a training, with that one's metrics.

    used: what was seen while it was played: trips of a session, processor seconds, the largest memory in bytes.
    """
    own = read_run(folder / cell.name)
    trained = own if shared is None else read_run(folder / shared)
    played = own.played or own.rounds
    told = own.statement["protection"]
    return {
        "schema": SCHEMA,
        "cell": cell.name,
        "status": "done" if own.played else "abandoned",
        **cell.facts,
        "rounds": len(trained.rounds),
        "metrics": {name: trained.played[-1][name] for name in trained.measured} if trained.played else {},
        "guarantees": own.guarantees,
        "epsilons": _epsilons(cell, own.statement),
        "search": _searched(cell, own.statement, own.guarantees),
        "bytes_up_per_client": _mean(played, "bytes_up_per_client"),
        "bytes_down_per_client": _mean(played, "bytes_down_per_client"),
        "seconds_per_round": _seconds(played),
        "survivors": _mean(played, "survivors"),
        "abandoned": len(trained.rounds) - len(trained.played),
        "trust": {key: told[key] for key in ("mechanism", "threat", "hidden", "learns", "collusion")},
        "shared": shared,
        **used,
    }


def _mean(rounds: list[Json], key: str) -> float | None:
    told = [entry.get(key) for entry in rounds]
    return None if not told or None in told else fmean(told)  # type: ignore[arg-type]  # no None is left


def _seconds(rounds: list[Json]) -> Json:
    """Mean seconds a round, by who spent them; what a layer withholds is left out."""
    names = dict.fromkeys(name for entry in rounds for name in entry["seconds"])
    return {name: fmean(entry["seconds"].get(name, 0.0) for entry in rounds) for name in names}


def _epsilons(cell: Cell, statement: Json) -> Json:
    """The price of the run's events by both accountants, a number per guarantee; None where one has no sound price."""
    if not statement["events"]:
        return {}
    layers = [layer for layer in privacy_layers(cell.config.privacy) if isinstance(layer, PrivacyLayer)]
    found: Json = {}
    for name in ACCOUNTANTS:
        account = Account(layers, cell.config.delta, accountant=name)
        account.events = [PrivacyEvent(**event) for event in statement["events"]]
        try:
            found[name] = [line.epsilon for line in account.guarantees() if line.accountant == name] or None
        except UnknownEvent:
            found[name] = None
    return found


def _searched(cell: Cell, statement: Json, guarantees: list[Json]) -> Json | None:
    """What the tuned table says of its search, and at the delta of the run: `all`, the price of all trials that the
    settings follow, as they were played; `best`, that of another search, of the best of as many in the mean that each
    spend what this run does (see `SelectedAccountant`). None without a search; no prices without one guarantee to
    compare with, and None for one that is not known.
    """
    if cell.search is None:
        return None
    told = {key: value for key, value in cell.search.items() if key != "spent"}
    if len(guarantees) != 1:
        return told
    delta = guarantees[0]["delta"]
    return {**told, "all": price(cell.search, delta), "best": _best(statement, int(told["trials"]), delta)}


def _best(statement: Json, trials: int, delta: float) -> float | None:
    from dp.accountants.selected import SelectedAccountant  # it imports SciPy

    facts, found = [PrivacyEvent(**event) for event in statement["events"]], []
    try:
        for party in {fact.party for fact in facts}:
            account = SelectedAccountant(trials)
            for fact in facts:
                if fact.party in ("", party):
                    account.add(from_fact(fact))
            found.append(account.epsilon(delta))
    except (UnknownEvent, Misuse):  # no sound price, or a single trial
        return None
    return max(found) if max(found) < math.inf else None
