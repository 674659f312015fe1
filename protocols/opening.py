"""When a protocol opens what, as data: for an adversary that searches (`protocols.audit.search`).

A protocol describes its own rule, and how a server that lies would put its requests (`audit_hooks.SearchHooks`).
What does not belong here: the search, and any protocol.

The family described: clients mask their input with a secret of their own and with one secret per neighbour. Shares of
both lie with holders. Whoever is asked about a view of who survived opens a share of the first secret for clients in
the view, of the second for clients outside it, and before that checks what `Check` says.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

KINDS = ("least", "own", "within", "same", "signed", "once", "voted", "bound")
AT = ("input", "vote", "open")
OF = ("", "list", "view", "votes")
AMONG = ("", "all", "neighbours", "windows")


@dataclass(frozen=True)
class Check:
    """What an honest client demands before it answers.

    name: for people. at: which answers it guards ("input", "vote", "open"). kind:
    "least": at least `count` clients of what it is given (`of`: the "list" of clients to mask with, the "view" of who
    survived, the "votes" for that view) `among` "all", its "neighbours", or in each of the rule's "windows".
    "own": it is itself in the view. "within": those in the view among `among` are in its own list. "same": the list
    that the view's statement names is its own; at "input": the list that it signs is the one that it masks with.
    "signed": each client in the view whose shares it holds signed, with its input or by a vote for this view, the list
    that the statement names. "once": one answer to `at` in a session, from a restored state too. "voted": it opens
    nothing but the view it voted for. "bound": a vote counts in its own session only.
    """

    name: str
    at: tuple[str, ...]
    kind: str
    of: str = ""
    among: str = ""
    count: int = 0

    def __post_init__(self) -> None:
        if (
            self.kind not in KINDS
            or self.of not in OF
            or self.among not in AMONG
            or not set(self.at) <= set(AT)
        ):
            raise ValueError(f"no such check: {self}")


@dataclass(frozen=True)
class Rule:
    """The opening rule of one session, once its graph is known.

    clients: their number. neighbours: of each client, by index: with whom it shares masks. holders: who holds its
    shares (empty: its neighbours). edges: whoever is in the view has its masks with those outside it opened one by
    one, and who is outside entrusted nothing; otherwise who is outside has all of its masks opened at once. threshold:
    shares that open a secret. least: clients in any total that may be opened. corrupt: how many clients it withstands
    in all; near: how many among one client's holders; windows: sets of clients that "windows" checks are about,
    in_window: how many corrupt clients it withstands in each. voters: whose votes count (empty: everybody's). order: an
    order of the clients in which neighbours are near (empty: as they are numbered). checks: what honest clients demand.
    unexamined: what a server could do that this description leaves out, in words.
    """

    clients: int
    neighbours: tuple[frozenset[int], ...]
    threshold: int
    least: int
    corrupt: int
    near: int
    checks: tuple[Check, ...]
    windows: tuple[frozenset[int], ...] = ()
    in_window: int = 0
    voters: frozenset[int] = frozenset()
    order: tuple[int, ...] = ()
    unexamined: tuple[str, ...] = ()
    holders: tuple[frozenset[int], ...] = ()
    edges: bool = False

    @property
    def shares(self) -> tuple[frozenset[int], ...]:
        """Who holds the shares of each client."""
        return self.holders or self.neighbours

    @property
    def voted(self) -> bool:
        """Whether anybody votes on what is opened."""
        return any("vote" in check.at for check in self.checks)


@dataclass(frozen=True)
class Group:
    """A group of clients that a plan draws at random. size: clients of a group. count: how many such groups there are.
    others: the group is one client's own, drawn from all others. corrupt: with so many corrupt members or more, the
    group fails. left: with fewer members that stay, it fails.
    """

    size: int
    count: int
    others: bool
    corrupt: int
    left: int


@dataclass(frozen=True)
class Odds:
    """What a plan leaves to chance. clients, corrupt, survivors: of the cohort. graphs: among how many the server may
    choose. security, correctness: bits. A secret is lost with probability 2^-security at most, a total with
    2^-correctness.
    """

    clients: int
    corrupt: int
    survivors: int
    groups: tuple[Group, ...]
    graphs: int
    security: float
    correctness: float


@dataclass(frozen=True)
class Graphs:
    """Among how many sparse graphs a plan lets a malicious server choose. rounds: how many rounds have a graph (0: any
    number). each: graphs that the server may choose among in one round. public: a graph follows from the session; else
    every session draws another.
    """

    rounds: int
    each: int
    public: bool


@dataclass(frozen=True)
class Attack:
    """What a lying server does, by client: the clients it is told to mask with (`lists`), the numbers of the views that
    it is asked to vote for (`votes`) and to open (`answers`), corrupt clients included. views: who is said to have
    survived. named: the list that each view's statement names. signs: the view whose list a client signs (missing: none
    of them). target: the clients whose sum should come out. beside:
    the context of a session of the same clients, who wait there for a vote: honest votes for all views but the first
    are got there (empty: no such session).
    """

    lists: Mapping[int, frozenset[int]]
    views: tuple[frozenset[int], ...]
    named: tuple[frozenset[int], ...]
    votes: Mapping[int, tuple[int, ...]]
    answers: Mapping[int, tuple[int, ...]]
    target: frozenset[int]
    signs: Mapping[int, int] = field(default_factory=dict)
    corrupt: Collection[int] = field(default_factory=frozenset)
    beside: bytes = b""
