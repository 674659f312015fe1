"""Everything that a client acts on in a round is in its session's digest, field by field, and refused by name."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from dp.sample import AdaptiveClip
from fl.network.messages import Header
from fl.round import Broadcast, Count, ModelLayout, Origin, RoundTerms, RunHeader, open_round, reference_of
from fl.round.chain import Chain
from fl.round.manifest import Manifest, Version
from protocols.errors import ProtocolViolation
from protocols.layers import Block, PrivacyLayer, RoundFacts, RunFacts
from protocols.public_values import PublicValues
from protocols.stack import Numbers, Stack
from protocols.statement import PrivacyEvent

NAMES = ("a", "b", "c", "d")
FULL = RoundTerms(
    Origin("wards", 3, "run-1", ModelLayout(metrics=("loss",))),
    RunHeader(9, 4, 4, "all", 1.0, 0.0, 3, 1, None, (Block("control", 3),)),
    2,
    "north",
    PublicValues.of({"client-dp": {"clip": 1.0}, "scaffold": {"control": np.ones(3)}}),
    (Count("steps", 9),),
    {"client-dp.relation": "'zero-out'"},
    ('{"kind": "Gaussian"}',),
    Manifest({"0": Version(b"1" * 32, 0)}, dict.fromkeys(NAMES, "0"), 2, Chain((b"1" * 32,), b"s" * 64)),
    b"m" * 32,
    b"c" * 32,
)


def others(value: Any) -> Iterator[Any]:
    """Every value that differs from this one in one place."""
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
        case str():
            yield f"{value}x"
        case bytes():
            yield bytes(len(value))
        case None:
            yield 7
        case np.ndarray():
            yield value + 1.0
        case tuple():
            yield (*value, *(value[:1] or ("x",)))
            for place, item in enumerate(value):
                yield from ((*value[:place], other, *value[place + 1 :]) for other in others(item))
        case dict():
            yield from ({**value, key: other} for key, item in value.items() for other in others(item))
        case _ if is_dataclass(value):
            for field in fields(value):
                yield from (changed(value, field.name, other) for other in others(getattr(value, field.name)))
        case _:
            raise AssertionError(f"say how to change a {type(value).__name__}")


def changed(record: Any, name: str, value: Any) -> Any:
    """A record with another value, whatever it refuses: a server need not keep to our checks."""
    made = object.__new__(type(record))
    made.__dict__.update(record.__dict__)
    object.__setattr__(made, name, value)
    return made


def test_changing_any_one_part_of_what_is_shown_changes_the_digest() -> None:
    digests = [FULL.digest(), *(other.digest() for other in others(FULL) if encodes(other))]
    assert len(digests) > 40
    assert len(set(digests)) == len(digests)


def encodes(shown: RoundTerms) -> bool:
    try:
        return bool(shown.encode())
    except ValueError:  # None became a number where no number can be
        return False


def test_a_header_holds_terms_and_what_is_of_one_session_alone() -> None:
    """A field that a client computes with belongs into the terms; these are a session's own, and the record's head."""
    assert {field.name for field in fields(Header)} == {"terms", "session", "head", "head_signature"}
    assert {field.name for field in fields(Broadcast)} >= {"terms", "digest"}


@pytest.mark.parametrize("name", [field.name for field in fields(RoundTerms)])
def test_terms_that_are_not_the_nodes_own_are_refused_by_name(name: str) -> None:
    own = FULL
    own.require(own)
    for other in others(getattr(own, name)):
        with pytest.raises(ProtocolViolation, match=rf"{name}|client-dp\.relation|from 1 to|^: ") as found:
            changed(own, name, other).require(own)
        assert found.value.party == "server"


@pytest.mark.parametrize("number", [0, 10, 10_000])
def test_a_round_that_was_not_planned_is_refused(number: int) -> None:
    told = replace(FULL, number=number)
    with pytest.raises(ProtocolViolation, match=f"from 1 to 9, .* says {number}") as found:
        told.require(told)
    assert found.value.party == "server"


def test_digests_are_named_in_hexadecimal_digits() -> None:
    with pytest.raises(
        ProtocolViolation, match=f"model: this node has {'6d' * 32}, the server says {'78' * 32}"
    ):
        replace(FULL, model=b"x" * 32).require(FULL)


# -- layers with other options --


def shown(*layers: PrivacyLayer, numbers: Numbers | None = None, number: int = 1) -> Broadcast:
    stack, run = Stack(layers, numbers or Numbers(range=1.0)), RunFacts(9, 4, 4, dimension=3)
    stack.plan(run)
    return open_round(stack, run, number, NAMES, reference_of({"w": np.zeros(3)}))


def sample(**options: Any) -> SampleDP:
    return SampleDP(**{"noise_multiplier": 1.0, "batch_size": 4, "examples": 8, **options})


DIFFERENT = {
    "client-dp.noise_multiplier": (ClientDP(noise_multiplier=5.0), ClientDP(noise_multiplier=0.05)),
    "client-dp.relation": (
        ClientDP(noise_multiplier=5.0),
        ClientDP(noise_multiplier=5.0, relation="replace"),
    ),
    "client-dp.clip": (
        ClientDP(noise_multiplier=5.0, clip=0.01),
        ClientDP(noise_multiplier=5.0, clip=1000.0),
    ),
    "client-dp.epsilon": (ClientDP(epsilon=2.0, delta=1e-5), ClientDP(epsilon=8.0, delta=1e-5)),
    "client-dp.denominator": (
        ClientDP(noise_multiplier=5.0),
        ClientDP(noise_multiplier=5.0, denominator=1.0),
    ),
    "local-dp.noise_multiplier": (LocalDP(noise_multiplier=2.0), LocalDP(noise_multiplier=1.0)),
    "distributed-dp.colluders": (
        DistributedDP(noise_multiplier=2.0, colluders=1),
        DistributedDP(noise_multiplier=2.0),
    ),
    "sample-dp.count_noise": (
        sample(clip=AdaptiveClip(count_noise=1.0)),
        sample(clip=AdaptiveClip(count_noise=2.0)),
    ),
    "sample-dp.examples": (sample(), sample(examples=800)),
}


@pytest.mark.parametrize("option", DIFFERENT)
def test_a_layer_with_another_option_is_refused_by_name_with_both_values(option: str) -> None:
    own, server = (shown(layer) for layer in DIFFERENT[option])
    assert own.digest != server.digest
    with pytest.raises(ProtocolViolation, match=option.replace(".", r"\.")) as refused:
        server.terms.require(own.terms)
    for side in (own, server):
        assert side.terms.options.get(option, "none") in str(refused.value)


def test_what_a_party_may_set_for_itself_and_other_types_of_a_number_are_no_difference() -> None:
    pairs = [
        (sample(physical_batch=2, gradients="ew"), sample()),
        (ClientDP(noise_multiplier=5, clip=2), ClientDP(noise_multiplier=5.0, clip=2.0)),
    ]
    for own, server in pairs:
        assert shown(own).digest == shown(server).digest
        shown(own).terms.require(shown(server).terms)


def test_other_numbers_are_refused_by_name() -> None:
    with pytest.raises(ProtocolViolation, match=r"numbers\.range: this node has 1\.0, the server says 2\.0"):
        shown(numbers=Numbers(range=2.0)).terms.require(shown().terms)


def test_planned_noise_that_no_option_shows_is_bound() -> None:
    class Quiet(PrivacyLayer):
        name = "quiet"

        def __init__(self, multiplier: float) -> None:
            self._multiplier = multiplier

        def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
            return (PrivacyEvent("Gaussian", {"noise_multiplier": self._multiplier}, "client", "zero-out"),)

    assert shown(Quiet(1.0)).digest == shown(Quiet(1.0 + 2.0**-50)).digest, "the last digits are a machine's"
    assert shown(Quiet(1.0)).digest != shown(Quiet(2.0)).digest


def test_a_fixed_clip_is_the_nodes_own_whatever_is_broadcast() -> None:
    stack, run = Stack([ClientDP(noise_multiplier=1.0, clip=0.5)]), RunFacts(9, 4, 4, dimension=3)
    told = {"client-dp": {"clip": 1000.0}}
    plan = open_round(stack, run, 1, NAMES, reference_of({"w": np.zeros(3)}), public=told).plan
    assert plan.summed.linf == 0.5


def test_another_round_has_another_digest() -> None:
    assert shown(number=1).digest != shown(number=7).digest
