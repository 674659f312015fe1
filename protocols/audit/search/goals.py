"""What a lying server wants: the exact sum of few honest clients. Added to an `Encoding`.

One client alone is the case of both its secrets: its own opened as a survivor, the masks with its neighbours as one
that left. What does not belong here: what honest clients check.
"""

from collections.abc import Mapping

from protocols.audit.search.encoding import Encoding


def add_goal(e: Encoding, most: int) -> list[int]:
    """Demand that a set of 1 to `most` honest clients is opened; return the variables of its cells."""
    inside, outside = _opened(e)
    seed, key = _reached(e, inside), _reached(e, outside)
    target = [e.program.new() for _ in e.cells]
    for c in e.all:
        e.program.implies(target[c], seed[c], e.sent[c])
    for (c, d), listed in e.listed.items():
        if c != d:
            _cancelled(e, (c, d), listed, target, key)
    sizes = {t: float(len(cell)) for t, cell in zip(target, e.cells, strict=True)}
    e.program.least(sizes, 1.0)
    e.program.least({t: -k for t, k in sizes.items()}, -float(most))
    _sort_alike(e, target)
    return target


def _sort_alike(e: Encoding, target: list[int]) -> None:
    """Cells of one size that all neighbour each other may change places: only one order of them is searched."""
    if (
        any(len(near) < e.rule.clients - 1 for near in e.rule.neighbours)
        or len({len(c) for c in e.cells}) > 1
    ):
        return
    told = [target, e.sent, *e.view, *e.vote, *e.open]
    for c in e.all[:-1]:
        codes = {row[c]: 2.0**k for k, row in enumerate(reversed(told))}
        codes |= {row[c + 1]: -(2.0**k) for k, row in enumerate(reversed(told))}
        e.program.least(codes, 0.0)


def _opened(e: Encoding) -> tuple[dict[tuple[int, int], list[int]], ...]:
    """Variables: holders of cell h open, about a view, the own secret (the key) of those in cell c."""
    p = e.program
    inside: dict[tuple[int, int], list[int]] = {}
    outside: dict[tuple[int, int], list[int]] = {}
    for h, c in e.pairs:
        inside[h, c], outside[h, c] = [p.new() for _ in e.views], [p.new() for _ in e.views]
        for v in e.views:
            one, other = inside[h, c][v], outside[h, c][v]
            p.implies(one, e.listed[h, c], e.view[v][c])
            p.implies(other, e.listed[h, c])
            p.least({other: -1, e.view[v][c]: -1}, -1)
            p.least({e.open[v][h]: 1, one: -1, other: -1}, 0)  # one answer opens one of the two
        for part in (inside, outside):  # one share of one holder, however often it is opened
            p.least(dict.fromkeys(part[h, c], -1.0), -1.0)
    return inside, outside


def _reached(e: Encoding, opened: Mapping[tuple[int, int], list[int]]) -> list[int]:
    """Variables: every client of a cell has this secret opened, by a threshold of its holders."""
    reached = [e.program.new() for _ in e.cells]
    for i, c in e.home.items():
        needed = e.rule.threshold - len(e.rule.neighbours[i] & e.corrupt)
        if needed > 0:
            terms = {x: float(k) for h, k in e.near[i].items() for x in opened[h, c]}
            e.program.least({**terms, reached[c]: -float(needed)}, 0.0)
    return reached


def _cancelled(e: Encoding, pair: tuple[int, int], listed: int, target: list[int], key: list[int]) -> None:
    """A mask with a neighbour goes if a key of the two is opened, or the other is in the target and put it in too."""
    c, d = pair
    both = e.program.new()
    e.program.implies(both, target[d], e.listed[d, c])
    e.program.least({key[c]: 1, key[d]: 1, both: 1, target[c]: -1, listed: -1}, -1)
