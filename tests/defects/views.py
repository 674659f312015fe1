"""Broken rules of opening: what an adversary that searches must find by itself."""

import copy
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any
from unittest.mock import patch

from protocols import agreement
from protocols.agreement import Certificate, check_vote
from protocols.audit.subject import Searched
from protocols.errors import PolicyRefusal, refuse
from protocols.kernel import Message, Step
from protocols.roles import read
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.client.dealing import deal
from secagg.client.establishing import Establishing
from secagg.client.opening import Opening
from secagg.client.view import View
from secagg.client.voting import Voting
from secagg.commitments import SEED, edge_kind
from secagg.messages import SIGNATURE_BYTES, Proceed, Unmask, items, unpack_bits
from secagg.places import Places
from secagg.session_rules import Rules, rules_of
from tests.defects.forged import drawing_together
from tests.defects.pieces import anything_goes, unmarked
from tests.defects.plans import (
    PLAN,
    OneBit,
    TwoShares,
    any_degree,
    behind_a_beacon,
    by_the_session,
    falling_back,
    largest_of_everybody,
    least_of_everybody,
    many_leave,
    only_in_set_ups,
    reusing,
    reusing_sparse,
    semi_honest_sparse,
    two_fifths,
)
from tests.defects.planting import Defect, put, together

CHECK, SHORTFALL, AGREED = View.check, Rules.shortfall, agreement.agreed
CREDENTIALS, ESTABLISH, MAKE = Credentials.check, Establishing.receive, Rules.__init__
CERTIFICATE = "secagg.client.view.check_certificate"


def few_holders() -> SecAgg:
    """Two disjoint sets of holders could open both secrets of a client: only the quorum prevents it."""
    return SecAgg(threshold=2)


def malicious() -> SecAgg:
    """Keys of the roster sign in every session."""
    return SecAgg(threshold=2, threat="malicious", credentials=Credentials.simulated(range(12)))


def signed(found: Certificate, voters: Mapping[int, bytes], digest: bytes, among: Collection[int]) -> int:
    """How many of `among` signed. Raises PeerError for a wrong signature."""
    named = zip(found.voters.tolist(), items(found.signatures, SIGNATURE_BYTES), strict=True)
    signers = [(j, signature) for j, signature in named if j in among]
    for j, signature in signers:
        check_vote(voters[j], digest, signature, str(j))
    return len(signers)


def by_neighbours(self: View, session: Any, asked: Unmask, neighbours: list[int]) -> None:
    """A threshold of a client's own neighbours is enough."""

    def check(found: Certificate, voters: Mapping[int, bytes], needed: int, digest: bytes, *_: Any) -> None:
        if signed(found, voters, digest, neighbours) < rules_of(session).threshold:
            raise refuse("too few neighbours signed")

    with patch(CERTIFICATE, check):
        CHECK(self, session, asked, neighbours)


def silence_counts(self: View, session: Any, asked: Unmask, neighbours: list[int]) -> None:
    """Survivors that did not vote are counted with those who did."""
    alive = unpack_bits(asked.survivors, session.clients)

    def check(found: Certificate, voters: Mapping[int, bytes], needed: int, digest: bytes, *_: Any) -> None:
        if not signed(found, voters, digest, alive) or len(alive) < needed:
            raise refuse("too few survivors")

    with patch(CERTIFICATE, check):
        CHECK(self, session, asked, neighbours)


def own_field(self: Rules, view: Any, seed: bytes) -> str:
    """The parameters' least survivors hold; the session's, which a policy reads, do not."""
    twin = copy.copy(self)
    twin.shown = self.parameters.survivors
    return SHORTFALL(twin, view, seed)


def any_sessions(context: bytes, facts: Mapping[str, bytes]) -> bytes:
    """A digest of dealers and survivors alone."""
    return AGREED(bytes(32), {k: v for k, v in facts.items() if k != "graph"})


def any_part(self: Credentials, session: Any) -> None:
    """Any part of the roster will do behind a beacon; its identities are still the roster's."""
    try:
        CREDENTIALS(self, session)
    except PolicyRefusal as refused:
        if not str(refused).startswith("beacon: "):
            raise


def nothing_pinned(session: Any, parameters: Any) -> bytes:
    return bytes(32)


def nobody_votes(self: Rules, parameters: Any, clients: int, survivors: int, *facts: Any) -> None:
    """Holders of reused keys open whatever view each of them is shown, on sparse graphs too: of more than a threshold,
    and of as many as were promised.
    """
    MAKE(self, parameters, clients, survivors, *facts)
    if parameters.reuse and not self.complete:
        self.agrees = False
        self.shown = self.survivors = max(self.threshold + 1, survivors)


def at_least_a_threshold(self: Establishing, request: Message, random: Any) -> Step:
    """A set-up is joined with the keys of any threshold of neighbours, whoever enrolled."""
    listed = read(Proceed, request).clients.tolist()
    around = [j for j in self.rules.neighbours(self.index, self.rules.seed) if j in listed]
    places = "secagg.places.Places"
    given_alone = together(
        put(f"{places}.known", lambda *_: listed),
        put(f"{places}.peers", lambda *_: listed),
        put(f"{places}.holders", lambda *_: [j for j in listed if j in self.rules.holders]),
        put(f"{places}.neighbours", lambda *_: around),
    )
    with given_alone():
        return ESTABLISH(self, request, random)


ENTRUSTED: dict[tuple[bytes, int], list[int]] = {}
"""By graph and owner: the neighbours that came with its shares."""


def telling(owner: Any, places: Places, *rest: Any) -> Any:
    """A box says for which neighbours its shares are."""
    ENTRUSTED[places.seed, owner.index] = places.neighbours(owner.index)
    return deal(owner, places, *rest)


def as_told(places: Places, owner: int) -> list[int]:
    """A holder believes what came with the shares, whoever enrolled."""
    return ENTRUSTED.get((places.seed, owner), places.neighbours(owner))


def kinds_as_told(places: Places, owner: int) -> list[bytes]:
    return [SEED, *map(edge_kind, as_told(places, owner))]


def opens_as_told(places: Places, owner: int, alive: Collection[int]) -> list[int]:
    return [0, *(at for at, j in enumerate(as_told(places, owner), 1) if j not in alive)]


MIXED = together(
    put("secagg.session_rules.Rules.__init__", nobody_votes),
    put("secagg.session_rules.Rules._fewest_in_a_row", lambda *_: 1 << 16),
    put("protocols.policy.Policy._share", anything_goes),
)
grinding = partial(Defect, caught_by="graphs-are-as-few-as-planned", protocol=drawing_together)
split = partial(Defect, caught_by="no-split-opens-few", protocol=few_holders)
DEFECTS = (
    split("opening before the vote is complete", plant=put(CERTIFICATE, anything_goes)),
    split("neighbours' quorum only", plant=put("secagg.client.view.View.check", by_neighbours)),
    split("non-voters counted", plant=put("secagg.client.view.View.check", silence_counts)),
    split("unsigned lists", plant=put("secagg.client.view.verify", anything_goes), protocol=SecAggPlus),
    split(
        "a party that votes twice", plant=put("secagg.client.voting.Voting.receive", unmarked(Voting.receive))
    ),
    split(
        "survivors moved to the other field",
        plant=put("secagg.session_rules.Rules.shortfall", own_field),
        protocol=many_leave,
    ),
    split(
        "window rule off",
        plant=put("secagg.session_rules.Rules._fewest_in_a_row", lambda *_: 1 << 16),
        protocol=SecAggPlus,
        # at once; at 20 it takes 2 s
        searched=Searched(complete=(), sparse=(), ring=((22, 11),), glance=0.2),
    ),
    split(
        "a vote without the session's digest",
        plant=together(
            *(put(f"{where}.agreed", any_sessions) for where in ("protocols.agreement", "secagg.client.view"))
        ),
        protocol=malicious,
    ),
    Defect(
        "a party that answers twice",
        "no-schedule-tells-two-sums",
        put("secagg.client.opening.Opening.receive", unmarked(Opening.receive)),
        few_holders,
    ),
    Defect(
        "threshold downgrade",
        "no-offer-opens-few",
        together(
            put("secagg.protocol.insist", anything_goes),
            put("secagg.mask_parameters.least_on_complete", lambda *_: 2),  # which refuses the same once more
        ),
        two_fifths,
    ),
    Defect(
        "ground beacon",
        "no-offer-opens-few",
        together(
            put("secagg.session_rules._seed", by_the_session),
            put("secagg.session_rules.Rules.ranked", None),
            put("secagg.credentials.Credentials.check", any_part),
            put("secagg.parameters.conditions.Cohort.secrecy", property(lambda self: self.security)),
        ),
        OneBit,
    ),
    grinding(
        "a part of the roster behind a beacon",
        plant=put("secagg.credentials.Credentials.check", any_part),
    ),
    grinding(
        "places on the ring in the server's order",
        plant=put("secagg.session_rules.Rules.ranked", None),
    ),
    grinding(
        "a graph of each session's own behind a beacon",
        plant=put("secagg.session_rules._seed", by_the_session),
    ),
    grinding(
        "a beacon for more rounds than are planned for",
        plant=put("secagg.mask_parameters.BEACON_ROUNDS", 1 << 40),
    ),
    grinding(
        "tries that nobody counts",
        plant=put("secagg.client.tries.Tries.next", lambda self: self),
    ),
    Defect(
        "unpinned reuse parameters",
        "no-offer-opens-few",
        together(put("secagg.memory.pins", nothing_pinned), put("secagg.protocol.insist", only_in_set_ups)),
        reusing,
    ),
    Defect(
        "a set-up with as few neighbours as a threshold",
        "forged-requests-refused",
        put("secagg.client.establishing.Establishing.receive", at_least_a_threshold),
        reusing_sparse,
    ),
    Defect(
        "a session beside one that answered keeps its chains",
        "abandoned-sessions-leave-nothing",
        put("protocols.runtime.Runtime._close_others", anything_goes),
        reusing_sparse,
    ),
    Defect(
        "a weaker model for cohorts that fit no other",
        "statement-is-true",
        put("secagg.parameter_choice.plan", falling_back),
        partial(SecAgg, dropout=0.41, setup="reuse"),
    ),
    Defect(
        "one memory for all federations on a store",
        "series-keep-to-themselves",
        put("protocols.runtime._hashed", lambda protocol, series: "all"),
        reusing_sparse,
    ),
    Defect(
        "an abandoned session keeps its chains",
        "abandoned-sessions-leave-nothing",
        put("protocols.runtime.Runtime._supersede", anything_goes),
        reusing_sparse,
    ),
    split(
        "a threshold that corrupt holders reach",
        plant=together(
            *(
                put(f"secagg.{where}.least_held", lambda *_: 2)
                for where in ("parameters.plan", "parameters.committee", "mask_parameters")
            )
        ),
        protocol=partial(TwoShares, setup="reuse"),
    ),
    split(
        "one view per holder on a sparse graph",
        plant=MIXED,
        protocol=reusing_sparse,
    ),
    Defect(
        "holders that do not compare entrusted neighbours",
        "forged-requests-refused",
        together(
            put("secagg.client.view.verify", anything_goes),
            put("secagg.client.resuming.deal", telling),
            put("secagg.places.Places.kinds", kinds_as_told),
            put("secagg.places.Places.opens", opens_as_told),
        ),
        reusing_sparse,
    ),
    split(
        "what mixed views leave out is not counted",
        plant=put("secagg.session_rules.Rules.sure", lambda _, shown: shown),
        protocol=lambda: SecAgg(setup="reuse"),
        searched=Searched(complete=(6,), sparse=(), ring=()),
    ),
    Defect(
        "neighbours drawn from all clients in place of the others",
        "plans-fail-as-rarely-as-promised",
        together(
            partial(PLAN, "least_threshold", least_of_everybody),
            partial(PLAN, "largest_threshold", largest_of_everybody),
        ),
        semi_honest_sparse,
    ),
    Defect(
        "one graph planned for, where the server may choose",
        "plans-fail-as-rarely-as-promised",
        put("secagg.parameters.conditions.Cohort.secrecy", property(lambda self: self.security)),
        drawing_together,
    ),
    Defect(
        "more neighbours behind a beacon",
        "plans-fail-as-rarely-as-promised",
        put("secagg.audit_search.insist", any_degree),
        behind_a_beacon,
    ),
)
