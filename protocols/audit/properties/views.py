"""Views: what the server, alone or with insiders, can make of all that it received."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from protocols.audit.draws import inputs, tell
from protocols.audit.prop import Finding, NotChecked, promised
from protocols.audit.properties import tampered
from protocols.audit.properties.tampered import RESIDUAL
from protocols.audit.reading import SAMPLES, SMALL, WIDE, elements_of, hook_of, modulus_of, rings, stripped_of
from protocols.audit.repeatable import ReplayRandom
from protocols.audit.statistics import Design, two_sample
from protocols.audit.stepping import Driven, Driving, drive
from protocols.kernel import Message, client

VIEWS = Design(4 * SAMPLES, tests=6, two=True)
INSIDERS = Design(SAMPLES, tests=40)
COMPONENTS = Design(SAMPLES, tests=400)
CLIENTS, SPARSE_CLIENTS = 5, 16
STRIPPED = "what the server can remove is not known"


@promised("semi-honest", "simulation, exact coupling", most=15)
def view_depends_on_the_sum_only(subject: Any, data: Any) -> None:
    """With equal randomness and equal sums, views differ by the masked difference and nothing else.

    Same randomness, inputs that differ but have the same sum: the views differ only where masks hide it, and by
    just that.
    """
    vectors = inputs(subject, data, 3)
    i, j = data.draw(st.permutations(range(len(vectors))), label="who differs")[:2]
    delta = data.draw(st.integers(1, max(1, subject.bound // 2)), label="difference")
    base = [v // 2 for v in vectors]
    moved = [v.copy() for v in base]
    moved[i] += delta // 2 + 1 if delta // 2 + 1 <= subject.bound // 2 else 0
    moved[j] -= moved[i][0] - base[i][0]
    number = data.draw(st.integers(0, 2**32), label="randomness")
    updates = {k: bytes([k]) * 32 for k in range(len(vectors))}
    same = {"bound": subject.bound, "updates": updates}
    plays = [subject.play(v, {}, rng=ReplayRandom(number), **same) for v in (base, moved)]
    for who, stage in _changed(*plays):
        if stage != subject.counting or who not in (f"client {i}", f"client {j}"):
            said = (
                "a message besides the two clients' inputs depends on the inputs, though the sum is the same"
            )
            whose = {"message": f"of {who} at {stage}", "moved": f"client {i} by +, client {j} by -"}
            raise tell(said, base, {}, plays[0], **whose)
    if subject.hooks.elements is None:
        return
    _same_around_elements(subject, plays)
    modulus = modulus_of(subject, plays[0])
    first, second = (elements_of(subject, p) for p in plays[:2])
    for k in (i, j):
        expected = (moved[k] - base[k]).astype(np.int64) % modulus if modulus < 1 << 63 else None
        got = ((second[k].astype(object) - first[k].astype(object)) % modulus).astype(object)
        if expected is not None and got[: len(expected)].tolist() != [int(x) for x in expected]:
            raise tell("the mask depends on the input it hides", base, {}, plays[0], client=k)


def _same_around_elements(subject: Any, plays: list[Any]) -> None:
    """Two coupled input messages differ in their ring elements and in no byte besides."""
    bare = subject.hooks.unsigned or (lambda message: message)
    for first, second in zip(plays[0].messages, plays[1].messages, strict=True):
        if first.stage != subject.counting or first.sender.role != "client":
            continue
        x, y = bare(first), bare(second)
        one, other = bytes(x.body), bytes(y.body)
        if len(one) != len(other):
            raise Finding(f"the length of {x.sender}'s input message depends on its input")
        read = partial(_read, subject, plays[0].session)
        for at in (k for k in range(len(one)) if one[k] != other[k]):
            mixed = one[:at] + other[at : at + 1] + one[at + 1 :]
            if read(replace(x, body=mixed)) in (read(x), None):
                raise Finding(
                    f"the input message of {x.sender} tells more of its input than its masked vector does\n"
                    f"  byte {at} of {len(one)} is no part of a ring element and depends on the input"
                )


def _read(subject: Any, session: Any, message: Message) -> list[int] | None:
    values = subject.hooks.elements(session, message)
    return None if values is None else values.tolist()


def _changed(a: Any, b: Any) -> list[tuple[str, str]]:
    return [
        (str(x.sender), x.stage)
        for x, y in zip(a.messages, b.messages, strict=True)
        if x.sender.role == "client" and bytes(x.body) != bytes(y.body)
    ]


@promised("semi-honest", "simulation", statistics=str(VIEWS), pieces=("elements modulus",))
def views_indistinguishable(subject: Any, data: Any) -> None:
    """Two input sets with equal sums give the same distribution of views.

    Two input sets with equal sums, many coordinates: the joint view of any two clients has one distribution.
    """
    d = VIEWS.samples
    n = max(3, subject.clients[0]) if subject.level == "black" else 3
    left = [np.ones(d, np.int64), -np.ones(d, np.int64), *[np.zeros(d, np.int64)] * (n - 2)]
    right = [np.zeros(d, np.int64)] * n
    views = []
    modulus = 0
    for vectors in (left, right):
        played = subject.play(vectors, {}, **rings(subject)[0])
        modulus = modulus_of(subject, played)
        views.append((stripped_of if subject.hooks.stripped else elements_of)(subject, played))
    for i, j in itertools.combinations(range(3), 2):
        for story, coarse in _coarsened(modulus):
            first, second = (16 * coarse(v[i]) + coarse(v[j]) for v in views)
            p = two_sample(first.astype(np.int64), second.astype(np.int64), 256)
            if p < VIEWS.level:
                raise Finding(
                    f"the server can tell two input sets with equal sums apart (p = {p:.2g})\n"
                    f"  first: 1, -1, 0; second: 0, 0, 0 in each of {d} coordinates\n"
                    f"  judged on clients {i} and {j} over Z_{modulus} ({story}), after it removed all masks it can"
                )


def _coarsened(modulus: int) -> list[tuple[str, Any]]:
    """How an element becomes one of 16 cells."""
    if modulus <= 16:
        return [("the whole element", lambda v: v)]
    return [
        ("its low bits", lambda v: v % np.uint64(16)),
        ("its top bits", lambda v: (v.astype(np.float64) / modulus * 16).clip(0, 15).astype(np.uint64)),
    ]


@promised(
    "semi-honest",
    "double masking (Bonawitz et al., CCS 2017, section 4)",
    statistics=str(RESIDUAL),
    pieces=("elements modulus tamper", "stripped modulus", "shares tolerated"),
    outside=tampered.kept_vectors,
)
def masked_after_unmasking(subject: Any, data: Any) -> None:
    """What the server can remove from a survivor's vector leaves it uniform, under drop-outs too.

    After the server removed every mask that the transcript opens, each client's vector is still uniform.
    """
    hook = hook_of(subject, "stripped", STRIPPED)
    zeros = [np.zeros(SAMPLES, np.int64)] * CLIENTS
    for bound, story, gone, tamper in _cases(subject):
        played = subject.play(zeros, gone, bound=bound, tamper=tamper)
        if played.total is not None:
            left = hook(played.session, played.messages, {})
            _still_hidden(left, modulus_of(subject, played), story, RESIDUAL)


def _cases(subject: Any) -> Iterator[tuple[int, str, dict[str, set[int]], Any]]:
    """Every client in turn leaves, before or after its input, or is said to have left."""
    first, last = subject.counting, subject.stages[-1]
    yield WIDE, "nobody leaves", {}, None
    yield SMALL, "nobody leaves", {}, None
    for i in range(CLIENTS):
        yield SMALL, f"client {i} leaves before its input", {first: {i}}, None
        yield SMALL, f"client {i} leaves after its input", {last: {i}}, None
        said = f"the server says client {i}'s vector never came, and keeps it"
        yield SMALL, said, {}, tampered.Keeping(subject, i)


@promised(
    "semi-honest",
    "privacy against t-1 colluding clients (Bonawitz et al., CCS 2017, theorem 6.3)",
    statistics=str(INSIDERS),
)
def hidden_from_insiders(subject: Any, data: Any) -> None:
    """The server with all clients but two learns nothing about either of the two beyond their sum.

    The server with all clients but two, any two: those still hide from it what each put in.
    """
    hook = hook_of(subject, "stripped", STRIPPED)
    for bound in (SMALL, WIDE):
        driven = drive(Driving(subject.protocol, bound), [np.zeros(SAMPLES, np.int64)] * CLIENTS)
        for outsiders in itertools.combinations(range(CLIENTS), 2):
            insiders = set(range(CLIENTS)) - set(outsiders)
            _hidden_from(subject, hook, driven, insiders, None, INSIDERS)


def _hidden_from(
    subject: Any, hook: Any, driven: Driven, insiders: set[int], among: set[int] | None, design: Design
) -> None:
    """The vectors of `among` (None: of all) stay uniform for the server together with these insiders."""
    saved, decode = driven.before[subject.counting], subject.protocol.decode_state
    states = {i: decode(saved[client(i)]) for i in sorted(insiders) if client(i) in saved}
    left = hook(driven.session, driven.messages, states)
    kept = {who: values for who, values in left.items() if among is None or who in among}
    story = f"clients {sorted(insiders)} tell the server all they know"
    _still_hidden(kept, modulus_of(subject, driven), story, design)


@promised(
    "semi-honest",
    "sparse graphs, corrupt clients fixed before the graph (Bell et al., CCS 2020, theorem 3.6)",
    statistics=str(COMPONENTS),
)
def hidden_in_its_component(subject: Any, data: Any) -> None:
    """On a sparse graph each client is hidden in its connected component of honest survivors.

    On a sparse graph, drawn after the corrupt clients were fixed: each client is hidden in its connected component
    of honest survivors, down to the two ends of one edge.
    """
    hook = hook_of(subject, "stripped", STRIPPED)
    neighbours = hook_of(subject, "neighbours", "its sparse graphs are not seen")
    protocol = hook_of(subject, "sparse", "its sparse graphs are not seen")(SPARSE_CLIENTS)
    rng = np.random.default_rng(0)
    graphs = []
    for round in (1, 2, 3):
        everyone = set(range(SPARSE_CLIENTS))
        order = rng.permutation(SPARSE_CLIENTS).tolist()
        corrupt, gone = set(order[:3]), order[3:5]  # fixed before the session, and so before its graph
        leaving = {subject.counting: {gone[0]}, subject.stages[-1]: {gone[1]}}
        zeros = [np.zeros(SAMPLES, np.int64)] * SPARSE_CLIENTS
        driven = drive(Driving(protocol, SMALL), zeros, gone=leaving, round=round)
        edges = {i: set(neighbours(driven.session, i, driven.messages)) for i in everyone}
        if all(len(mates) == SPARSE_CLIENTS - 1 for mates in edges.values()):
            raise NotChecked("the hook `sparse` makes a complete graph")
        graphs.append(edges)
        honest = everyone - corrupt - {gone[0]}
        for component in _components(edges, honest):
            if len(component) > 1:
                _hidden_from(subject, hook, driven, corrupt, component, COMPONENTS)
        for i, j in itertools.combinations(sorted(everyone - {gone[0]}), 2):
            if j in edges[i]:
                _hidden_from(subject, hook, driven, everyone - {i, j}, {i, j}, COMPONENTS)
    if all(edges == graphs[0] for edges in graphs):
        raise Finding(
            "every session has the same graph: whoever knows it corrupts the neighbours of one client\n"
            f"  client 0 has the neighbours {sorted(graphs[0][0])} in {len(graphs)} sessions"
        )


def _components(edges: dict[int, set[int]], among: set[int]) -> list[set[int]]:
    """The connected components of the graph on `among`."""
    found, rest = [], set(among)
    while rest:
        component, border = set(), {min(rest)}
        while border:
            component |= border
            border = {j for i in border for j in edges[i] & rest} - component
        rest -= component
        found.append(component)
    return found


def _still_hidden(left: Any, modulus: int, story: str, design: Design) -> None:
    if not left:
        raise NotChecked("the hook `stripped` reads nothing out of this protocol's transcript")
    tampered.still_hidden(left, modulus, story, design)
