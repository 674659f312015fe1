"""What a lying server wants: the exact sum of few honest clients. Added to an `Encoding`.

One client alone is the case of both its secrets: its own opened as a survivor, the masks with its neighbours as one
that left. What does not belong here: what honest clients check.
"""

from collections.abc import Iterable, Mapping

from protocols.audit.search.encoding import Encoding

Opened = Mapping[tuple[int, int], list[int]]
"""By cells of a holder and an owner, and by view: variables of what is opened."""


def add_goal(e: Encoding, most: int) -> list[int]:
    """Demand that a set of 1 to `most` honest clients is opened; return the variables of its cells."""
    inside = {(h, c): [_inside(e, h, c, v) for v in e.views] for h, c in e.held}
    seed = _reached(e, inside, e.all)
    off = _edges(e) if e.rule.edges else _keys(e, inside)
    target = [e.program.new() for _ in e.cells]
    for c in e.all:
        e.program.implies(target[c], seed[c], e.sent[c])
    for (c, d), listed in e.listed.items():
        if c != d:  # a mask goes if it is opened, or the other is in the target and put it in too
            both = e.program.new()
            e.program.implies(both, target[d], e.listed[d, c])
            e.program.least({**dict.fromkeys(off[c, d], 1.0), both: 1, target[c]: -1, listed: -1}, -1)
    sizes = {t: float(len(cell)) for t, cell in zip(target, e.cells, strict=True)}
    e.program.least(sizes, 1.0)
    e.program.least({t: -k for t, k in sizes.items()}, -float(most))
    _sort_alike(e, target)
    return target


def _sort_alike(e: Encoding, target: list[int]) -> None:
    """Cells of one size that all neighbour each other may change places: only one order of them is searched."""
    if (
        any(len(near) < e.rule.clients - 1 for near in (*e.rule.neighbours, *e.rule.shares))
        or len({len(c) for c in e.cells}) > 1
    ):
        return
    told = [target, e.sent] if e.alone else [target, e.sent, *e.view, *e.vote, *e.open]
    for c in e.all[:-1]:
        codes = {row[c]: 2.0**k for k, row in enumerate(reversed(told))}
        codes |= {row[c + 1]: -(2.0**k) for k, row in enumerate(reversed(told))}
        e.program.least(codes, 0.0)


def _inside(e: Encoding, h: int, c: int, v: int) -> int:
    """Variable: holders of cell h open, about a view, the own secret of those in cell c."""
    one = e.program.new()
    e.program.implies(one, e.open[v][h], e.view[v][c], *_entrusted(e, h, c))
    return one


def _entrusted(e: Encoding, h: int, c: int) -> list[int]:
    """Variables without which those in cell c have given holders of cell h no share, or none that they take."""
    lists = (c, h) if e.rule.edges else (h, c)
    return [e.listed[lists]] if lists in e.listed else []


def _outside(e: Encoding, h: int, c: int, v: int, inside: int) -> int:
    """Variable: holders of cell h open, about a view, all masks of those in cell c, who are not in it."""
    one = e.program.new()
    e.program.implies(one, e.listed[h, c])
    e.program.least({one: -1, e.view[v][c]: -1}, -1)
    e.program.least({e.open[v][h]: 1, one: -1, inside: -1}, 0)  # one answer opens one of the two
    return one


def _between(e: Encoding, h: int, pair: tuple[int, int], v: int) -> int:
    """Variable: holders of cell h open what those in the pair's first cell, in a view, share with the second's."""
    one = e.program.new()
    e.program.implies(one, e.open[v][h], e.view[v][pair[0]], *_entrusted(e, h, pair[0]))
    e.program.least({one: -1, e.view[v][pair[1]]: -1}, -1)
    return one


def _keys(e: Encoding, inside: Opened) -> dict[tuple[int, int], list[int]]:
    """For each pair of cells what opens the masks between them: either one's key."""
    outside = {(h, c): [_outside(e, h, c, v, inside[h, c][v]) for v in e.views] for h, c in e.held}
    key = _reached(e, outside, e.all)
    return {(c, d): [key[c], key[d]] for c, d in e.pairs}


def _edges(e: Encoding) -> dict[tuple[int, int], list[int]]:
    """For each pair of cells what opens the masks between them: shares that either one entrusted."""
    found = {}
    for c, d in e.pairs:
        opened = {(h, c): [_between(e, h, (c, d), v) for v in e.views] for h, owner in e.held if owner == c}
        found[c, d] = _reached(e, opened, [c])[c]
    return {(c, d): [found[c, d], found[d, c]] for c, d in e.pairs}


def _reached(e: Encoding, opened: Opened, cells: Iterable[int]) -> dict[int, int]:
    """Variables: every client of a cell has a secret opened, by a threshold of its holders."""
    reached = {c: e.program.new() for c in cells}
    for some in opened.values():  # one share of one holder, however often it is opened
        e.program.least(dict.fromkeys(some, -1.0), -1.0)
    for i, c in e.home.items():
        needed = e.rule.threshold - len(e.rule.shares[i] & e.corrupt)
        if needed > 0 and c in reached:
            terms = {x: float(k) for h, k in e.holders[i].items() for x in opened[h, c]}
            e.program.least({**terms, reached[c]: -float(needed)}, 0.0)
    return reached
