"""The queue of rounds without waiting, without torch: who is handed which version, when a sum is due, what is kept."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fl.round import Reference, reference_of
from fl.round.buffers import Buffers, require_manifest
from fl.round.chain import PURPOSE, Chain
from protocols.errors import Misuse, ProtocolViolation
from protocols.identity import Identity, verify
from protocols.store import MemoryStore

NAMES = tuple("abcdef")


class Toy:
    """Arrivals in a given order; None: nobody was in time. started: who was given which version, in order."""

    goes_on = True

    def __init__(self, *order: str | None) -> None:
        self.order, self.started = list(order), list[tuple[str, int]]()

    def start(self, client: str, version: int) -> None:
        self.started.append((client, version))

    def wait(self) -> str | None:
        return self.order.pop(0)

    def state(self) -> Any:
        return self.order

    def restore(self, state: Any) -> None:
        self.order = state


def model(value: float, kept: int = 0) -> Reference:
    return reference_of({"w": np.full(2, value), "n": np.array([kept])})


def queue(*order: str | None, size: int = 3, **options: Any) -> tuple[Buffers, Toy]:
    made, toy = Buffers(size, **options), Toy(*order)
    made.arrivals = toy
    made.grow(model(0.0))
    return made, toy


def ended(made: Buffers, asked: Sequence[str], value: float | None) -> None:
    made.closed(asked, None if value is None else model(value))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"alike": 0}, "got 0, 20 and 1"),
        ({"leaving": -1}, "got 2, 20 and -1"),
        ({"oldest": 0}, "got 2, 0 and 1"),
        ({"alike": 3}, "at least 4, for alike=3"),
        ({"leaving": 2}, "at least 4"),
        ({"at_once": 2}, "at least 3, the clients of a buffer, got 2"),
    ],
)
def test_a_sum_that_cannot_be_is_refused(options: dict[str, int], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        Buffers(3, **options)
    Buffers(3, alike=1, leaving=0, oldest=1, at_once=3)
    Buffers(3, alike=3, leaving=0)


def test_what_is_expected_unless_more_is_said() -> None:
    made = Buffers(3)
    assert (made.alike, made.leaving, made.oldest, made.at_once, made.together) == (2, 1, 20, 0, 3)


def test_whoever_is_done_first_is_asked_in_the_order_of_the_roster_and_works_on_the_newest_then() -> None:
    made, toy = queue("e", "b", "c", "d", "a", "f", "b")
    assert made.due(NAMES) == ("b", "c", "e")
    assert toy.started == [(name, 0) for name in NAMES]
    assert (sorted(made.working), sorted(made.ready)) == (["a", "d", "f"], ["b", "c", "e"])
    ended(made, ("b", "c", "e"), 1.0)
    assert made.over == 1
    assert made.due(NAMES) == ("a", "d", "f")  # they began with version 0, three together
    assert toy.started[6:] == [(name, 1) for name in ("b", "c", "e")]
    ended(made, ("a", "d", "f"), None)  # abandoned: the model stays, what was made is spent
    assert (made.over, made.chain.newest, made.ready) == (2, 1, {})


def test_a_version_too_rare_for_a_sum_or_too_old_begins_anew() -> None:
    made, toy = queue(size=3, oldest=1)
    made.working, made.ready = {"a": 0, "b": 0}, {"c": 1, "d": 1, "e": 1}
    ended(made, (), 1.0)
    assert made.due(NAMES) == ("c", "d", "e")
    assert toy.started == [("a", 1), ("b", 1), ("f", 1)]  # two of version 0 are no sum: three would be
    ended(made, ("c", "d", "e"), None)
    made.working = {"a": 1}
    toy.order = [None]
    assert made.due(("a", "b")) == ()
    assert toy.started[3:] == [("b", 1)]  # whoever works on the newest goes on, alone or not
    toy.started.clear()
    made.working, made.ready = {}, dict.fromkeys("abc", 0)
    ended(made, (), 2.0)
    made.ready |= dict.fromkeys("def", 1)
    assert made.due(NAMES) == ("d", "e", "f")
    assert sorted(toy.started) == [("a", 2), ("b", 2), ("c", 2)]  # two versions old, and one is allowed


def test_nobody_in_time_and_whom_nothing_can_be_made_of_begin_anew() -> None:
    made, toy = queue("a", None)
    assert made.due(NAMES) == ()
    assert (made.working, made.ready) == ({}, {"a": 0})
    made, toy = queue("a", "b", "c", size=4, alike=1, leaving=1)  # two versions, and three clients only
    made.ready = {}
    with pytest.raises(IndexError):  # all three are done, none can be summed: they begin anew, and wait
        made.due(("a", "b", "c"))
    assert toy.started == [(name, 0) for name in "abc"] * 2


def test_clients_who_take_turns_hold_a_model_only_so_many_at_a_time() -> None:
    made, toy = queue("a", "b", "c", "d", "e", "f", at_once=3)
    for asked, version in (("a", "b", "c"), 0), (("d", "e", "f"), 1):
        assert made.due(NAMES) == asked
        assert toy.started[-3:] == [(name, version) for name in asked]
        ended(made, asked, version + 1.0)
    assert b'"turn": 6' in made.state()["buffers"].tobytes()


def test_a_sum_takes_enough_of_each_version_and_fills_up_with_the_rest() -> None:
    made, _ = queue(size=5, alike=1, leaving=1)
    ended(made, (), 1.0)
    made.ready = {"a": 0, "b": 0, "c": 0, "d": 1, "e": 1, "f": 2}
    assert made._chosen() == {"a", "b", "c", "d", "e"}
    made.ready = {"a": 0, "b": 0, "c": 1, "d": 2, "e": 2, "f": 2}
    assert made._chosen() == {"a", "b", "d", "e", "f"}
    made.ready = {"a": 0, "b": 0, "c": 1, "d": 1}
    assert made._chosen() == set()  # four of five
    made.size = 3
    assert made._chosen() == set()  # room for one version, which has two
    made.ready["e"] = 1
    assert made._chosen() == {"c", "d", "e"}


def test_models_are_kept_as_long_as_somebody_works_on_them_and_the_chain_for_good() -> None:
    made, _ = queue()
    made.grow(model(0.0))  # as it was: no link
    assert made.chain.newest == 0
    made.working, made.ready = {"a": 0}, {"b": 1}
    for value in (1.0, 2.0, 3.0):
        made.grow(model(value))
    assert sorted(made.models) == [0, 1, 3]
    assert made.chain.digests == tuple(model(value).digest for value in (0.0, 1.0, 2.0, 3.0))
    for _ in range(2):
        made.grow(model(1.0))  # a run may come back to a model
    assert (made.chain.newest, made.chain.digests[4]) == (4, model(1.0).digest)


def test_who_started_where_signed_with_the_models_they_were_given() -> None:
    made, _ = queue()
    made.signer = Identity.generate("server")
    made.ready = {"a": 0, "b": 1}
    ended(made, (), 1.0)
    manifest, bases = made.started(("a", "b", "c"), model(1.0, kept=7), "wards/1")
    assert manifest.started == {"a": "0", "b": "1", "c": "1"}
    assert {name: version.age for name, version in manifest.versions.items()} == {"0": 1, "1": 0}
    assert manifest.alike == 2
    assert [float(bases[name].tree["w"][0]) for name in "abc"] == [0.0, 1.0, 1.0]
    assert [int(bases[name].tree["n"][0]) for name in "abc"] == [
        7,
        7,
        7,
    ]  # the server's own, which no round moves
    head = made.chain.head(1)
    verify(made.signer.public, PURPOSE, b"wards/1" + head, manifest.chain.signature)
    manifest, _ = made.started(("b",), model(1.0))
    verify(made.signer.public, PURPOSE, head, manifest.chain.signature)
    first = Buffers(3)
    manifest, _ = first.started(("a",), model(5.0))
    assert manifest.chain.digests == (model(5.0).digest,)
    assert manifest.chain.signature == b""


def test_a_run_goes_on_where_it_was_or_everybody_begins_anew() -> None:
    made, toy = queue("a", "b", "c", "d", at_once=4)
    made.due(NAMES)
    ended(made, ("a", "b", "c"), 1.0)
    state = made.state()
    again, other = queue("x")
    again.restore({})
    again.restore(state)
    assert (again.working, again.ready, again.over) == (made.working, made.ready, 1) == ({"d": 0}, {}, 1)
    assert (again.chain, other.order) == (made.chain, ["d"])
    assert {n: flat.vector.tolist() for n, flat in again.models.items()} == {0: [0.0, 0.0], 1: [1.0, 1.0]}
    assert again.state().keys() == state.keys()
    assert again.state()["buffers"].tobytes() == state["buffers"].tobytes()
    anew, toy = queue("y")
    toy.goes_on = False
    anew.restore(state)
    assert (anew.working, anew.ready, anew.over, toy.order) == ({}, {}, 1, ["y"])


def test_a_client_refuses_a_manifest_that_its_federation_has_not_and_a_model_too_old() -> None:
    made, _ = queue(oldest=2)
    for value in (1.0, 2.0, 3.0):
        made.models[made.chain.newest + 1] = model(value).flat
        made.working = {"a": 0, "b": 1}
        made.grow(model(value))
    made.ready = {"b": 1}
    manifest, _ = made.started(("b",), model(3.0))
    require_manifest(manifest, made)
    with pytest.raises(ProtocolViolation, match="one model for all") as found:
        require_manifest(manifest, None)
    assert found.value.party == "server"
    made.ready = {"a": 0}
    old, _ = made.started(("a",), model(3.0))
    with pytest.raises(ProtocolViolation, match=r"at most 2 versions old, .* got one of 3") as found:
        require_manifest(old, made)
    assert found.value.party == "server"


def test_a_link_is_over_the_one_before_and_who_remembers_it_refuses_another_past() -> None:
    models, head = (b"1" * 32, b"2" * 32, b"3" * 32), bytes(32)
    for at, digest in enumerate(models):
        head = hashlib.sha256(b"secagg model chain v1\0" + at.to_bytes(8, "big") + head + digest).digest()
    chain, store = Chain(models), MemoryStore()
    assert chain.head(2) == head
    Chain(models[:2]).remember("run", store)
    chain.remember("run", store)
    assert store.get("chain/run") == (2).to_bytes(8, "big") + head
    for other in (Chain(models[:2]), Chain((b"x" * 32, *models[1:]))):
        with pytest.raises(ProtocolViolation, match="are not those that this client saw") as found:
            other.remember("run", store)
        assert found.value.party == "server"
