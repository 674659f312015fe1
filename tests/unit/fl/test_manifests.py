"""Inputs that started from different models: a manifest of versions, who started where, and factors by age."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl.account import Account
from fl.engines.memory import MemoryEngine
from fl.round import (
    Broadcast,
    Manifest,
    PlayedRound,
    Reference,
    Version,
    contribution_of,
    new_session,
    open_round,
    play,
    reference_of,
)
from fl.round.party import RoundParty
from fl.round.party_ledger import PartyLedger
from protocols.errors import (
    Misuse,
    PolicyRefusal,
    ProtocolViolation,
)
from protocols.layers import Contribution, RoundFacts, RunFacts
from protocols.policy import Policy
from protocols.session import Session
from protocols.stack import Numbers, Stack
from protocols.store import MemoryStore
from secagg import SecAgg
from tests.unit.fl.test_round_kinds import model

BASES = {"1": reference_of(model(1.0)), "2": reference_of(model(2.0))}

STARTED = {"a": "1", "b": "1", "c": "1", "d": "2", "e": "2", "f": "2"}

WAITED = {"1": 3, "2": 0}


def manifest(started: Mapping[str, str] = STARTED, **digests: bytes) -> Manifest:
    made = {name: base.digest for name, base in BASES.items()} | digests
    return Manifest({name: Version(made[name], WAITED[name]) for name in made}, dict(started))


def opened(base: Reference, shown: Manifest, limit: float | None = 2.0, number: int = 7) -> Broadcast:
    stack, run = Stack([SecAgg()], Numbers(range=limit)), RunFacts(9, 6, 6, dimension=3)
    bases = {name: BASES[version] for name, version in shown.started.items()}
    return open_round(stack, run, number, tuple(shown.started), base, manifest=shown, bases=bases)


def summed(server: Broadcast) -> PlayedRound:
    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        # what a client computes for itself
        assert opened(broadcast.reference, manifest()).digest == server.digest
        flat = broadcast.reference.flat
        return contribution_of(broadcast, replace(flat, vector=flat.vector + 1.0), 1, client=own.client)

    stack = Stack([SecAgg()], Numbers(range=2.0))
    return play([server], MemoryEngine(stack.secure_sum, work), stack, Account())


def test_inputs_from_different_models_are_summed_with_factors_that_follow_age() -> None:
    (mean,) = summed(opened(BASES["2"], manifest())).means
    assert mean.vector == pytest.approx([(0.5 + 0.5 + 1 + 1) / 4] * 3, abs=1e-3)


def test_a_client_notices_a_model_of_its_own_whatever_its_work_makes() -> None:
    trained: list[str] = []

    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        trained.append(own.client)
        return Contribution(np.zeros(3), 1, {})

    honest = opened(BASES["2"], manifest())
    server = replace(honest, bases={**honest.bases, "a": reference_of(model(1.5))})
    stack = Stack([SecAgg()], Numbers(range=2.0))
    played = play([server], MemoryEngine(stack.secure_sum, work), stack, Account())
    assert (trained, played.result.survivors) == (["b", "c", "d", "e", "f"], tuple("bcdef"))
    assert "is not the version '1'" in played.result.refusals["a"]


def test_a_version_made_for_one_client_is_refused_by_server_and_client() -> None:
    trap = opened(BASES["2"], manifest({**STARTED, "b": "2", "c": "2"}))
    with pytest.raises(Misuse, match="version '1': 1 clients started from it, at least 2 must"):
        summed(trap)
    claimed = new_session(SecAgg(), opened(BASES["2"], manifest()), least=2)
    site = (MemoryStore(), PartyLedger(Path()), Policy(), Stack([SecAgg()], Numbers(range=2.0)))
    with pytest.raises(PolicyRefusal, match="version '1': 1 clients"):
        RoundParty("a", *site).session(trap, replace(claimed, model=trap.digest), trap.terms)
    own, mine = opened(BASES["2"], manifest()), opened(BASES["1"], manifest())
    with pytest.raises(
        ProtocolViolation, match="the model that 'a' was given is not the version '1'"
    ) as found:
        RoundParty("a", *site).session(own, claimed, own.terms)
    assert found.value.party == "server"
    assert RoundParty("a", *site).session(mine, claimed, mine.terms) == claimed


def test_a_factor_follows_from_the_age_of_a_version_that_can_be() -> None:
    with pytest.raises(Misuse, match="age below 3"):
        opened(BASES["2"], manifest(), number=3)
    with pytest.raises(Misuse, match="under one name"):
        manifest(**{"1": BASES["2"].digest})
    with pytest.raises(Misuse, match="ages from 0"):
        Manifest({"1": Version(bytes(32), -1)}, {})
    with pytest.raises(Misuse, match=r"expected one of the clients .* got ''"):
        contribution_of(opened(BASES["1"], manifest()), BASES["1"].flat, 1)


def test_the_digest_binds_the_whole_manifest() -> None:
    older = Manifest({**manifest().versions, "1": Version(BASES["1"].digest, 4)}, STARTED)
    others = [older, manifest({**STARTED, "b": "2"}), manifest(**{"1": bytes(32)})]
    bound = hashlib.sha256(b"secagg manifest v3\0" + manifest().encode())
    assert manifest().digest() == bound.digest()
    digests = {opened(BASES["2"], each).digest for each in (manifest(), *others)}
    assert len(digests) == 4


def test_a_manifest_needs_an_explicit_range_and_the_clients_of_the_round() -> None:
    with pytest.raises(Misuse, match="range"):
        opened(BASES["2"], manifest(), None)
    with pytest.raises(Misuse, match="manifest of"):
        manifest().require(("a", "b"), 7)


def test_a_version_keeps_its_least_whoever_leaves() -> None:
    """Two of four could leave, and one client of a version made for two was alone with it."""
    whole = opened(BASES["2"], manifest())
    assert (whole.manifest.least, whole.plan.min_survivors) == (5, 5)  # type: ignore[union-attr]
    claimed = new_session(SecAgg(), whole)
    assert claimed.min_survivors == 5
    two = manifest({"a": "1", "b": "1", "c": "2", "d": "2", "e": "2", "f": "2"})
    assert new_session(SecAgg(), opened(BASES["2"], two)).min_survivors == 6
    site = (MemoryStore(), PartyLedger(Path()), Policy(), Stack([SecAgg()], Numbers(range=2.0)))
    mine = opened(BASES["1"], manifest())
    with pytest.raises(PolicyRefusal, match="min_survivors: the layers demand 5"):
        RoundParty("a", *site).session(mine, replace(claimed, min_survivors=4), mine.terms)
    weak = replace(manifest(), alike=1)
    with pytest.raises(PolicyRefusal, match="keeps 1 clients of a version in a total, at least 2"):
        RoundParty("a", *site).session(shown := opened(BASES["1"], weak), claimed_of(shown), shown.terms)


def claimed_of(broadcast: Broadcast) -> Session:
    return new_session(SecAgg(), replace(broadcast, alike=1))
