"""What is checked of the shares that clients of a black box open: sealed before, as many as promised, of one secret.

What does not belong here: servers that lie (`tampered`, `search.outside`), what masks hide (`given`).
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from protocols.audit.draws import tell
from protocols.audit.pieces import Seen
from protocols.audit.prop import Finding, NotChecked


def vectors(subject: Any) -> list[Any]:
    return [np.array([i + 1, -i], np.int64) % (subject.bound + 1) for i in range(subject.clients[1])]


def promised(subject: Any, clients: int) -> int:
    """The fewest clients who must be left at the last stage for a total to be promised."""
    if subject.tolerated is None:
        raise NotChecked(subject.unknown["exact-sum"])
    last = subject.stages[-1]
    kept = [k for k in range(1, clients + 1) if subject.tolerated(clients, {last: set(range(clients - k))})]
    return min(kept, default=clients)


def sealed_shares(subject: Any, data: Any) -> None:
    """No share that is opened was in an earlier message."""
    played = subject.play(vectors(subject), {})
    before, seen = b"", 0
    for message in played.transcript:
        for owner, kind, share in subject.pieces.shares(message):
            seen += 1
            if len(share) >= 8 and (bytes(share) in before or bytes(share).hex().encode() in before):
                raise Finding(
                    f"a share that is opened went over the relay in clear before\n  {message[0]} opens a share of "
                    f"client {owner}'s {kind or 'secret'}"
                )
        before += bytes(message[2])
    if not seen:
        raise NotChecked("`shares` read no share out of any message")


def one_secret_of_each(subject: Any) -> str:
    """In sessions where nobody lies, whoever leaves, no client has both secrets opened. Returns what was looked at."""
    n = subject.clients[1]
    enough, said = threshold(subject)
    late = subject.stages[subject.stages.index(subject.counting) :]
    for gone in ({}, *({stage: {i}} for stage in late for i in range(n))):
        came = opened_in(subject, subject.play(vectors(subject), gone).transcript, enough)
        for i in range(n):
            if {(i, "own"), (i, "key")} <= came:
                raise tell(
                    f"both secrets of client {i} are opened though nobody lies: all masks of its vector come off",
                    vectors(subject), gone, shares=said,
                )  # fmt: skip
    unread = (
        "" if {"elements", "modulus"} <= subject.given else "; no vector was: give elements= and modulus="
    )
    return f"shares were looked at: {said}{unread}"


def threshold(subject: Any) -> tuple[dict[str, int], str]:
    """How many shares open a secret, by which of a client's secrets, and how that is known."""
    n = subject.clients[1]
    least = promised(subject, n)
    if subject.pieces.opens is None:
        return {}, f"{least} of {n} shares are assumed to open a secret: give BlackBox opens= to know"
    found: dict[str, int] = {}
    for gone in ({}, {subject.counting: {n - 1}}):
        for (_, secret), shares in _held(subject, subject.play(vectors(subject), gone).transcript).items():
            found[secret] = max(found.get(secret, 0), _fewest(subject, shares))
    if not found:
        raise NotChecked("`shares` read no share out of any message")
    told = ", ".join(
        f"{count} open a client's {secret or 'secret'}" for secret, count in sorted(found.items())
    )
    return found, f"of {n} shares {told}, as `opens` shows; a total is promised where {least} are left"


def _fewest(subject: Any, shares: dict[int, bytes]) -> int:
    """The fewest shares of one secret from which it comes, whichever they are."""
    holders = sorted(shares)

    def secret(some: list[int]) -> bytes | None:
        with contextlib.suppress(Exception):
            made = subject.pieces.opens({i: shares[i] for i in some})
            return None if made is None else bytes(made)
        return None

    whole, fewest = secret(holders), len(holders)
    if not whole:
        raise NotChecked(f"`opens` gives no secret of {fewest} shares that were opened")
    while fewest > 1 and secret(holders[: fewest - 1]) == whole == secret(holders[1 - fewest :]):
        fewest -= 1
    return fewest


def _held(subject: Any, transcript: Iterable[Seen]) -> dict[tuple[int, str], dict[int, bytes]]:
    """(client, which of its secrets) -> the shares of it that were opened, by the place of who opened them."""
    found: dict[tuple[int, str], dict[int, bytes]] = {}
    for message in transcript:
        for owner, secret, share in subject.pieces.shares(message):
            found.setdefault((owner, secret), {})[_place(message[0])] = share
    return found


def _place(sender: str) -> int:
    """A client's place; -1 for anybody else."""
    return int(sender.split()[1]) if sender.startswith("client ") else -1


def opened_in(subject: Any, transcript: Iterable[Seen], enough: Mapping[str, int]) -> set[tuple[int, str]]:
    """(client, which of its secrets) for every secret of which enough shares were opened: as many as `enough` says, or
    as must be left for a total.
    """
    least = promised(subject, subject.clients[1])
    held = _held(subject, transcript)
    return {one for one, by in held.items() if len(by) >= enough.get(one[1], least)}
