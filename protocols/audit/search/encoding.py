"""A rule and a lying server as a mixed-integer program: what it shows to whom, what honest clients then answer.

Honest clients stand in cells that share every decision: cells of one client search everything, larger ones search what
treats neighbours on a circle alike. A solution is exact for every single client either way. Corrupt clients answer
whatever helps. What does not belong here: which rules are left out (`planning`), and messages.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations

from protocols.audit.search.program import Program
from protocols.opening import Check, Rule

Cells = Sequence[Sequence[int]]


class Encoding:
    """The variables of one search. Indices: cell c, view v; pairs of cells (c, d) where someone in c neighbours d.

    Where nobody votes and everybody opens once, each cell has a view of its own: more are of no use.
    """

    def __init__(self, rule: Rule, corrupt: frozenset[int], cells: Cells, views: int) -> None:
        self.rule, self.corrupt, self.cells = rule, corrupt, cells
        self.alone = not rule.voted and any((c.kind, c.at) == ("once", ("open",)) for c in rule.checks)
        self.views, self.all = range(len(cells) if self.alone else views), range(len(cells))
        self.program = p = Program()
        self.home = {i: c for c, cell in enumerate(cells) for i in cell}
        self.near = {i: self.count(rule.neighbours[i]) for i in self.home}
        self.pairs = sorted({(c, d) for i, c in self.home.items() for d in self.near[i]})
        self.holders = {i: self.count(rule.shares[i]) for i in self.home}
        self.held = sorted({(h, c) for i, c in self.home.items() for h in self.holders[i]})
        self.sent = [p.new() for _ in cells]
        self.listed = {pair: p.new() for pair in self.pairs}
        self.view = [[p.new() for _ in cells] for _ in self.views]
        self.named = [[p.new() for _ in cells] for _ in self.views]
        self.equal = {pair: p.new() for pair in combinations(self.views, 2)}
        self.vote = [[p.new() for _ in cells] for _ in self.views]
        self.open = [[p.new() for _ in cells] for _ in self.views]
        self.used = {(at, v): p.new() for at in ("input", "vote", "open") for v in self.views}
        self.heard = [[p.new() for _ in cells] for _ in self.views]
        self.agrees = [[p.new() for _ in cells] for _ in self.views]
        self._world()

    def count(self, clients: frozenset[int]) -> Counter[int]:
        """How many of these clients are in each cell."""
        return Counter(self.home[i] for i in clients if i in self.home)

    def guards(self, check: Check, v: int) -> list[list[int]]:
        """The answers about a view that a check guards, by cell."""
        return [{"vote": self.vote, "open": self.open}[at][v] for at in check.at]

    def _world(self) -> None:
        """What holds whatever is checked: nothing follows without an input; statements are the same or they differ."""
        p = self.program
        for pair, listed in self.listed.items():
            p.implies(listed, self.sent[pair[0]])
        for v in self.views:
            for c in self.all:
                p.implies(self.vote[v][c], self.sent[c], self.used["vote", v])
                p.implies(self.open[v][c], self.sent[c], self.used["open", v])
                p.implies(self.heard[v][c], self.vote[v][c], self.view[v][c])
                p.implies(self.agrees[v][c], self.sent[c], self.named[v][c], self.used["input", v])
                if not self.rule.voted:
                    p.fix(self.vote[v][c])
                if self.alone and c != v:
                    p.fix(self.open[v][c])
        for (v, w), equal in self.equal.items():
            for c in self.all:
                p.least({self.named[v][c]: 1, self.named[w][c]: -1, equal: -1}, -1)
                p.least({self.named[v][c]: -1, self.named[w][c]: 1, equal: -1}, -1)
                p.least({self.agrees[v][c]: -1, self.agrees[w][c]: -1, equal: 1}, -1)

    def demand(self, check: Check) -> None:
        """Add what one check demands."""
        getattr(self, f"_{check.kind}")(check)

    def _least(self, check: Check) -> None:
        if check.of == "list" and check.among != "neighbours":
            for v in self.views:
                self._counted(check, self.named[v], self.agrees[v], self.used["input", v])
            self._own_list(check)
            return
        if check.of == "list":
            for i, c in self.home.items():
                terms = {self.listed[c, d]: float(k) for d, k in self.near[i].items()}
                self._at_least(terms, self.rule.neighbours[i], check.count, self.sent[c])
            return
        for v in self.views:
            item = self.heard[v] if check.of == "votes" else self.view[v]
            for at, guards in zip(check.at, self.guards(check, v), strict=True):
                self._counted(check, item, guards, self.used[at, v])

    def _own_list(self, check: Check) -> None:
        """A client's list may have anybody besides its neighbours: what is counted rests on which of those it has."""
        everyone = frozenset(range(self.rule.clients))
        at: dict[int, set[int]] = defaultdict(set)
        for number, window in enumerate(self.rule.windows):
            for i in window:
                at[i].add(number)
        for i, c in self.home.items():
            near = self.rule.neighbours[i]
            windows = (self.rule.windows[k] for k in set().union(*(at[j] for j in near)))
            for place in (everyone,) if check.among == "all" else windows:
                if check.count <= len(place - near):
                    continue
                terms = {self.listed[c, d]: float(k) for d, k in self.count(place & near).items()}
                self._at_least(terms, place & near, check.count - len(place - near), self.sent[c])

    def _counted(self, check: Check, item: list[int], guards: list[int], used: int) -> None:
        everyone = frozenset(range(self.rule.clients))
        if check.among == "neighbours":
            for i, c in self.home.items():
                terms = {item[d]: float(k) for d, k in self.near[i].items()}
                self._at_least(terms, self.rule.neighbours[i], check.count, guards[c])
            return
        if check.of == "votes":
            everyone = self.rule.voters or everyone
        for place in (everyone,) if check.among == "all" else self.rule.windows:
            terms = {item[d]: float(k) for d, k in self.count(place).items()}
            self._at_least(terms, place, check.count, used)

    def _at_least(self, terms: dict[int, float], place: frozenset[int], count: int, guard: int) -> None:
        needed = count - len(place & self.corrupt)
        if needed > 0:
            self.program.least({**terms, guard: terms.get(guard, 0.0) - needed}, 0.0)

    def _own(self, check: Check) -> None:
        for v in self.views:
            for guards in self.guards(check, v):
                for c in self.all:
                    self.program.implies(guards[c], self.view[v][c])

    def _within(self, check: Check) -> None:
        p = self.program
        for v in self.views:
            if check.among == "all":
                for at in check.at:
                    for c in self.all:
                        p.least({self.named[v][c]: 1, self.view[v][c]: -1, self.used[at, v]: -1}, -1)
                continue
            for guards in self.guards(check, v):
                for c, d in self.pairs:
                    p.least({self.listed[c, d]: 1, self.view[v][d]: -1, guards[c]: -1}, -1)

    def _same(self, check: Check) -> None:
        if check.at == ("input",):
            self._signs_its_own()
            return
        for v in self.views:
            for guards in self.guards(check, v):
                for c in self.all:
                    self.program.implies(guards[c], self.agrees[v][c])

    def _signs_its_own(self) -> None:
        for v in self.views:
            for c, d in self.pairs:
                one, other, agrees = self.listed[c, d], self.named[v][d], self.agrees[v][c]
                self.program.least({one: 1, other: -1, agrees: -1}, -1)
                self.program.least({one: -1, other: 1, agrees: -1}, -1)

    def _once(self, check: Check) -> None:
        for at in check.at:
            answers: Callable[[int], list[int]] = {"vote": self.vote, "open": self.open}[at].__getitem__
            for c in self.all:
                self.program.least({answers(v)[c]: -1.0 for v in self.views}, -1.0)

    def _voted(self, check: Check) -> None:
        for v in self.views:
            for c in self.all:
                self.program.implies(self.open[v][c], self.vote[v][c])

    def _signed(self, check: Check) -> None:
        """Who votes for a view signs its list as well."""
        voters = self.rule.voters or self.home
        for v in self.views:
            for h, c in self.held:
                said = {self.vote[v][c]: 1.0} if all(i in voters for i in self.cells[c]) else {}
                terms = {self.agrees[v][c]: 1.0, **said, self.open[v][h]: -1.0, self.view[v][c]: -1.0}
                self.program.least(terms, -1)

    def _bound(self, check: Check) -> None:
        """See `planning`: without it, a vote in a session beside this one counts here."""
