"""A ledger for others to read: JSON and a page of Markdown. Nothing here writes to a ledger."""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dp.budget import Spending, Terms
from dp.event_json import decode
from dp.events import describe
from dp.ledger_store import Entry
from protocols.guarantee import rounded_up

VERSION = 1


def export(terms: Terms, spent: Sequence[Spending], entries: Sequence[Entry]) -> dict[str, Any]:
    """The whole ledger as one JSON object: terms, prices with unit and relation, every charge."""
    return {
        "version": VERSION,
        "terms": terms.to_plain(),
        "spent": [_plain(spending) for spending in spent],
        "charges": [asdict(entry) for entry in entries],
    }


def _plain(spending: Spending) -> dict[str, Any]:
    """JSON types; an infinite price becomes null."""
    data: dict[str, Any] = {
        **asdict(spending),
        "unit": str(spending.unit),
        "relation": str(spending.relation),
    }
    data["epsilon"] = _number(spending.epsilon)
    data["parties"] = {party: _number(price) for party, price in spending.parties.items()}
    return data


def _number(price: float) -> float | None:
    return price if math.isfinite(price) else None


def page(terms: Terms, spent: Sequence[Spending], entries: Sequence[Entry]) -> str:
    """The ledger as Markdown: what was spent of what, per statement and party, and each kind of event with
    its count."""
    lines = [f"# Privacy ledger{f' of {_cell(terms.dataset)}' if terms.dataset else ''}", ""]
    lines += [
        f"Budget: epsilon {terms.epsilon:g} at delta {terms.delta:g}, priced by the {terms.accountant} accountant.",
        "",
    ]
    for spending in spent:
        lines += [f"## Per {spending.unit}, {spending.relation} neighbours", ""]
        lines += [
            f"Spent: epsilon {rounded_up(spending.epsilon)} at delta {rounded_up(spending.delta)} "
            "(the largest over parties).",
            "",
        ]
        named = {party: price for party, price in spending.parties.items() if party}
        if named:
            lines += ["| party | epsilon |", "| --- | --- |"]
            lines += [f"| {_cell(party)} | {rounded_up(price)} |" for party, price in named.items()] + [""]
    lines += ["## Charges", "", "| run | party | event | times | rounds |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in _grouped(entries)]
    return "\n".join(lines) + "\n"


def _grouped(entries: Sequence[Entry]) -> list[tuple[str, str, str, str, str]]:
    groups: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for entry in entries:
        groups.setdefault((entry.run, entry.party, entry.event), []).append((entry.count, entry.round))
    return [
        (
            _cell(run),
            _cell(party) or "every one",
            _cell(describe(decode(event))),
            str(sum(count for count, _ in rows)),
            f"{min(r for _, r in rows)} to {max(r for _, r in rows)}",
        )
        for (run, party, event), rows in groups.items()
    ]


def _cell(text: str) -> str:
    """Text that is shown as it is, whatever Markdown or HTML it looks like."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(text, quote=False))
