"""What an audit gives back: a verdict per property, as JSON, Markdown and HTML. No checking here."""

import enum
import html
import re
from dataclasses import asdict, dataclass
from typing import Any


class Status(enum.Enum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not-checked"
    NOT_CLAIMED = "not-claimed"
    NOT_VISIBLE = "not-visible"


ORDER = (Status.NOT_CHECKED, Status.FAILED, Status.NOT_VISIBLE, Status.NOT_CLAIMED, Status.PASSED)


@dataclass(frozen=True)
class Checked:
    """One property's verdict. reason: why it was not checked or not claimed, what an adapter would have to give to make
    it visible, or what failed. counterexample: the story, or None.
    """

    name: str
    claim: str
    literature: str
    status: Status
    reason: str
    examples: int
    seconds: float
    counterexample: str | None = None
    statistics: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "status": self.status.value, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class Report:
    """protocol, level ("black" or "white"), threat model, seed, the verdicts in the order they were made, the
    properties that were left out because nobody asked for a search, and those that were not reached because the audit
    was cut off.
    """

    protocol: str
    level: str
    threat: str
    seed: int
    properties: tuple[Checked, ...]
    not_searched: tuple[str, ...] = ()
    cut_off: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True if some property passed, none failed, and every one that is claimed and visible was checked."""
        statuses = {p.status for p in self.properties}
        allowed = {Status.PASSED, Status.NOT_CLAIMED, Status.NOT_VISIBLE}
        return Status.PASSED in statuses and statuses <= allowed and not self.cut_off

    @property
    def verdict(self) -> str:
        """Whether it passed, in words; of a black box, only as far as its adapter lets an audit see."""
        if self.cut_off:
            return "was cut off"
        seen = " what can be seen of it" if self.count(Status.NOT_VISIBLE) else ""
        return f"passed{seen}" if self.passed else "did not pass"

    def count(self, status: Status) -> int:
        """How many properties have that verdict."""
        return sum(p.status is status for p in self.properties)

    def reasons(self, status: Status) -> dict[str, list[str]]:
        """Why properties have that verdict -> their names: what would make them visible, for one."""
        found: dict[str, list[str]] = {}
        for p in self.properties:
            if p.status is status:
                found.setdefault(p.reason, []).append(p.name)
        return found

    def _opening(self) -> str:
        return f"The protocol {self.verdict}: {self.level} box, threat model {self.threat}, seed {self.seed}."

    def closing(self) -> str:
        """How many properties there are of each verdict, in one line."""
        words = {status: status.value.replace("-", " ") for status in Status}
        others = [f"{self.count(s)} {words[s]}" for s in ORDER if s is not Status.PASSED and self.count(s)]
        told = f"{self.count(Status.PASSED)} of {len(self.properties) + len(self.cut_off)} properties passed"
        return "; ".join([told, *others, *([f"{len(self.cut_off)} not reached"] if self.cut_off else [])])

    def ordered(self) -> list[Checked]:
        """What was not checked first, then failures, then the rest."""
        return sorted(self.properties, key=lambda p: ORDER.index(p.status))

    def to_json(self) -> dict[str, Any]:
        lists = {name: list(getattr(self, name)) for name in ("not_searched", "cut_off")}
        properties = [p.to_json() for p in self.properties]
        return {**asdict(self), "properties": properties, **lists, "passed": self.passed}

    def to_markdown(self) -> str:
        """Evidence to keep: a table, what each property claims, and every counterexample."""
        lines = [
            f"# Audit of {_plain(self.protocol)}",
            "",
            f"{self._opening()} {self.closing()}.",
            "",
            *([_left_out(self), ""] if _left_out(self) else []),
            "| property | status | examples | seconds | reason |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {p.name} | {p.status.value} | {p.examples} | {p.seconds:.1f} | {_plain(p.reason)} |"
            for p in self.ordered()
        ]
        for p in self.ordered():
            lines += ["", f"## {p.name}", "", f"{p.claim} ({p.literature})"]
            lines += ["", p.statistics] if p.statistics else []
            lines += ["", *_fenced(p.counterexample)] if p.counterexample else []
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """The same as one self-contained page."""
        rows = "".join(
            f"<tr class={p.status.value}><td>{html.escape(p.name)}</td><td>{p.status.value}</td><td>{p.examples}</td>"
            f"<td>{p.seconds:.1f}</td><td>{html.escape(p.claim)}<br><small>{html.escape(p.literature)}. "
            f"{html.escape(p.statistics)}</small></td><td>{html.escape(p.reason)}"
            f"{f'<pre>{html.escape(p.counterexample)}</pre>' if p.counterexample else ''}</td></tr>"
            for p in self.ordered()
        )
        title = f"Audit of {html.escape(self.protocol)}"
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
            f"<h1>{title}</h1><p>{html.escape(self._opening())} {self.closing()}. {_left_out(self)}</p><table><tr>"
            f"<th>property<th>status<th>examples<th>seconds<th>claim<th>reason</tr>{rows}</table></html>\n"
        )


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;"
    "color:#222;background:#fff}"
    "table{border-collapse:collapse;width:100%}td,th{border:1px solid #bbb;padding:.4rem .6rem;text-align:left;"
    "vertical-align:top}tr.failed td:nth-child(2){background:#fbd5d5}tr.passed td:nth-child(2){background:#d8f3dc}"
    "tr.not-checked td:nth-child(2){background:#fff3bf}pre{white-space:pre-wrap}small{color:#555}"
)


def _left_out(report: Report) -> str:
    """What was left out, in sentences; empty if nothing was."""
    searches, rest = ", ".join(report.not_searched), ", ".join(report.cut_off)
    told = [f"Not examined, for want of a search (--search): {searches}."] if searches else []
    return " ".join([*told, *([f"Not reached when the audit was cut off: {rest}."] if rest else [])])


def _plain(text: str) -> str:
    """Text on one line that Markdown shows as it is, in a cell of a table too."""
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\|`\[\]])", r"\\\1", text)


def _fenced(story: str) -> list[str]:
    """A story as a block of code, within a fence that no line of it can close."""
    longest = max((len(run) for run in re.findall("`+", story)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, story, fence]
