"""One client's side of a session: what it checks before it trains, and what its ledger says when its update leaves."""

import hashlib
import math
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import ClientDP, Ledger
from dp.event_json import from_fact
from fl.account import Account
from fl.engines.memory import MemoryEngine
from fl.round import Broadcast, Origin, contribution_of, new_session, open_round, play, reference_of
from fl.round.contribution import encoded
from fl.round.party import RoundParty
from fl.round.party_ledger import LEDGER, SENT_AGAIN, PartyLedger, party_events
from protocols import PlainSum
from protocols.errors import PolicyRefusal, ProtocolViolation, RollbackDetected, SetupMissing, SpentUpdate
from protocols.kernel import spending
from protocols.layers import Contribution, PrivacyLayer, RoundFacts, RunFacts, Signal
from protocols.policy import Policy
from protocols.runtime import recall
from protocols.session import Session
from protocols.stack import Numbers, Stack
from protocols.statement import PrivacyEvent
from protocols.store import MemoryStore
from secagg import SecAgg, SecAggPlus

NAMES = ("a", "b", "c", "d")
TREE = {"w": np.zeros(3, np.float32)}


def noisy(multiplier: float = 2.0) -> Stack:
    return Stack(
        [ClientDP(noise_multiplier=multiplier, delta=1e-5, clip=1.0), PlainSum()], Numbers(range=1.0)
    )


def opened(stack: Stack, tree: dict[str, Any] = TREE, cohort: int = 4, least: int = 1) -> Broadcast:
    run = RunFacts(9, 4, cohort, dimension=3, delta=1e-5)
    stack.plan(run)
    return open_round(stack, run, 2, NAMES, reference_of(tree), least=least)


def party(folder: Path, stack: Stack, policy: Policy = Policy(), name: str = "a", **own: Any) -> RoundParty:  # noqa: B008  # frozen
    store = MemoryStore()
    return RoundParty(name, store, PartyLedger(folder, store=store, **own), policy, stack)


def adds(step: float) -> Any:
    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        flat = broadcast.reference.flat
        return contribution_of(broadcast, replace(flat, vector=flat.vector + step), 1)

    return work


def spent(folder: Path) -> list[tuple[str, int, str]]:
    return [(entry.run, entry.round, entry.note) for entry in Ledger(folder / LEDGER).entries()]


# -- what it checks --


def test_a_layer_or_a_secure_sum_that_the_policy_does_not_name_is_refused(tmp_path: Path) -> None:
    stack = Stack([ClientDP(noise_multiplier=1.0, delta=1e-5, clip=1.0), SecAgg()])
    names = tuple(layer.name for layer in stack.layers)
    party(tmp_path, stack).require_layers()
    party(tmp_path, stack, Policy(allow_layers=(*names, SecAgg.name))).require_layers()
    for allowed, missing in ((names, SecAgg.name), ((SecAgg.name,), names[0]), ((), names[0])):
        with pytest.raises(PolicyRefusal, match=f"does not accept '{missing}'"):
            party(tmp_path, stack, Policy(allow_layers=allowed)).require_layers()


def test_a_session_is_taken_as_it_was_shown_and_no_other(tmp_path: Path) -> None:
    stack = Stack([SecAgg()], Numbers(range=1.0))
    shown = opened(stack, least=3)
    claimed, own = new_session(stack.secure_sum, shown), party(tmp_path, stack)
    assert own.session(shown, claimed, shown.terms) == claimed
    assert claimed.min_survivors == 3

    def refused(session: Session, why: str, broadcast: Broadcast = shown) -> None:
        with pytest.raises(ProtocolViolation, match=why) as found:
            own.session(broadcast, session, broadcast.terms)
        assert found.value.party == "server"

    refused(replace(claimed, model=bytes(32)), "not bound to the round that came with it")
    refused(replace(claimed, bound=claimed.bound + 1), "bound or modulus")
    refused(replace(claimed, dimension=claimed.dimension + 1), "dimension, bound or modulus")
    refused(replace(claimed, modulus=1 << 40), "or modulus is not what the layers give")
    few = opened(stack, cohort=3)
    refused(new_session(stack.secure_sum, few), "does not fit the model or the cohort", few)
    wide = opened(stack, {"w": np.zeros(4, np.float32)})
    refused(new_session(stack.secure_sum, wide), "does not fit the model or the cohort", wide)
    with pytest.raises(PolicyRefusal, match="the layers demand 3, the session offers 2"):
        own.session(shown, replace(claimed, min_survivors=2), shown.terms)
    with pytest.raises(PolicyRefusal, match="cohort: the policy demands at least 5"):
        party(tmp_path, stack, Policy(min_cohort=5)).session(shown, claimed, shown.terms)


def test_what_a_client_is_told_of_a_round(tmp_path: Path) -> None:
    stack, store = noisy(), MemoryStore()
    run = RunFacts(9, 4, 4, dimension=8, delta=1e-5)
    stack.plan(run)
    tree = {"w": np.zeros((2, 2), np.float32), "x": np.zeros((1, 2), np.complex64), "n": np.array([3])}
    origin = Origin("wards", 3, "run-1")
    told = {"client-dp": {"clip": 0.5}}
    shown = open_round(stack, run, 2, NAMES, reference_of(tree), public=told, origin=origin, alike=3)
    own = shown.own("b", store)
    assert (own.client, own.store, own.scope) == ("b", store, origin.scope)
    assert (own.public, own.shapes, own.clients) == (told, ((2, 2), (4,)), NAMES)
    assert own.arrives == shown.plan.arrives
    other = replace(shown, reference=reference_of(tree, integers="sum"))  # counts alone have other rules
    assert own.schema == other.own("b").schema != b""
    assert shown.own("b", store).schema != opened(noisy()).own("b").schema
    assert (shown.alike, shown.own("b").store) == (3, None)
    assert shown.digest == shown.plan.digest(shown.terms.digest())
    assert shown.terms.configuration == hashlib.sha256(b"").digest()


class Wraps(PrivacyLayer):
    """Toy: sums modulo a number of its own."""

    name = "wraps"

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        return replace(given, modulus=1 << 40)


def test_a_session_has_the_modulus_that_the_layers_ask_for() -> None:
    stack = Stack([Wraps(), SecAgg()], Numbers(range=1.0))
    shown = opened(stack)
    assert int(new_session(stack.secure_sum, shown).modulus) == shown.plan.modulus == 1 << 40


# -- what it pays --


def test_an_update_is_charged_before_it_leaves_and_leaves_twice_only_by_its_owners_policy(
    tmp_path: Path,
) -> None:
    stack = noisy()
    shown = opened(stack)
    session = new_session(stack.secure_sum, shown, least=2)
    own = party(tmp_path / "site" / "data", stack)
    own.begin(shown, session, 0, adds(0.5), "wards")
    assert spent(own.ledger.folder) == [("wards", 2, "")]
    assert stat.S_IMODE(own.ledger.folder.stat().st_mode) == 0o700
    assert 0 < own.train_seconds < 60
    assert not own.sent_again
    facts = shown.own("a", own.store)
    own.store.mark_once(spending(encoded(shown, adds(0.5)(shown, facts), facts)[1]))  # it left
    with pytest.raises(SpentUpdate, match="left this client once"):
        own.begin(shown, session, 0, adds(0.5), "wards")
    assert own.sent_again
    assert len(spent(own.ledger.folder)) == 1
    again = replace(own, policy=Policy(allow_resend=True))
    again.begin(shown, session, 0, adds(0.5), "wards")
    again.begin(shown, session, 0, adds(0.25), "wards")  # another update
    assert spent(own.ledger.folder) == [("wards", 2, ""), ("wards", 2, SENT_AGAIN), ("wards", 2, "")]


def test_the_first_step_has_the_input_its_name_and_the_nodes_policy(tmp_path: Path) -> None:
    stack = Stack([PlainSum()], Numbers(range=1.0))
    shown = opened(stack)
    session = new_session(stack.secure_sum, shown, least=2)
    facts = shown.own("b")
    vector, update = encoded(shown, adds(0.5)(shown, facts), facts)
    start = party(tmp_path, stack, name="b").begin(shown, session, 1, adds(0.5), "wards")
    assert (start(None).state.vector.tolist(), start(None).state.update) == (vector.tolist(), update)
    strict = party(tmp_path, stack, Policy(min_cohort=5), name="b")
    with pytest.raises(PolicyRefusal, match="cohort"):
        strict.begin(shown, session, 1, adds(0.5), "wards")(None)


def test_what_the_first_step_would_refuse_costs_neither_training_nor_budget(tmp_path: Path) -> None:
    stack, trained = Stack([SecAgg()], Numbers(range=1.0)), list[str]()
    shown = opened(stack)

    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        trained.append(own.client)
        return adds(0.5)(broadcast, own)

    strict = party(tmp_path, stack, Policy(min_cohort=5))
    with pytest.raises(PolicyRefusal, match="cohort"):
        strict.begin(shown, new_session(stack.secure_sum, shown), 0, work, "wards")
    assert trained == []


def test_a_round_beyond_the_nodes_largest_epsilon_is_refused_before_it_trains(tmp_path: Path) -> None:
    stack, trained = noisy(), []
    shown = opened(stack)
    (event,) = party_events(shown.plan, "a")
    price = Ledger(tmp_path / "other", epsilon=math.inf, delta=1e-5, accountant="rdp").price_with(
        from_fact(event)
    )

    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        trained.append(own.client)
        return adds(0.5)(broadcast, own)

    session = new_session(stack.secure_sum, shown)
    with pytest.raises(PolicyRefusal, match=r"max_epsilon: this round would bring this node to"):
        party(tmp_path, stack, Policy(max_epsilon=price * 0.999)).begin(shown, session, 0, work, "wards")
    assert trained == []
    own = party(tmp_path, stack, Policy(max_epsilon=price))
    own.begin(shown, session, 0, work, "wards")
    with pytest.raises(PolicyRefusal, match="it accepts"):  # a second one is dearer
        own.begin(shown, session, 0, work, "wards")
    with pytest.raises(PolicyRefusal, match="it accepts"):  # another process of the site charged meanwhile
        own.ledger.charge((event,), price, run="wards", round=3, again=False)
    assert (trained, len(spent(tmp_path))) == (["a"], 1)
    masks = Stack([SecAgg()], Numbers(range=1.0))
    with pytest.raises(PolicyRefusal, match="no layer of this run bounds what it loses"):
        party(tmp_path / "none", masks, Policy(max_epsilon=8.0)).begin(
            opened(masks), new_session(masks.secure_sum, opened(masks)), 0, work, "wards"
        )


def test_reused_keys_are_those_of_the_series_and_a_missing_set_up_is_found_before_training(
    tmp_path: Path,
) -> None:
    stack, trained = Stack([SecAggPlus(setup="reuse")], Numbers(range=1.0)), list[str]()
    protocol, engine = stack.secure_sum, MemoryEngine(stack.secure_sum, adds(0.5))
    assert play([opened(stack)], engine, stack, Account()).error is None
    shown = opened(stack)
    session = new_session(protocol, shown, number=3, memory=engine.memory())
    assert session != new_session(protocol, shown, number=3)

    def work(broadcast: Broadcast, own: RoundFacts) -> Contribution:
        trained.append(own.client)
        return adds(0.25)(broadcast, own)

    own = replace(party(tmp_path, stack), store=engine.stores["a"])
    start = own.begin(shown, session, 0, work, "wards")
    assert start(recall(own.store, protocol)).state is not None
    with pytest.raises(SetupMissing):
        start(None)
    for missing, series in ((party(tmp_path, stack), ""), (own, "another")):
        with pytest.raises(SetupMissing, match="took no part in the set-up"):
            missing.begin(shown, session, 0, work, "wards", series)
    assert trained == ["a"]


def test_what_is_charged_or_told_while_a_client_trains_counts_too(tmp_path: Path) -> None:
    """A layer says its price before it trains (`afford`); another process of the site may charge meanwhile."""
    stack = noisy()
    shown = opened(stack)
    session = new_session(stack.secure_sum, shown, least=2)
    events = party_events(shown.plan, "a")
    limit = 1.01 * Ledger(tmp_path / "x", epsilon=math.inf, delta=1e-5, accountant="rdp").price_with(
        from_fact(events[0])
    )
    own = party(tmp_path / "afford", stack, Policy(max_epsilon=limit))

    def dear(broadcast: Broadcast, facts: RoundFacts) -> Contribution:
        assert facts.store is own.store
        facts.afford(events)
        (twice,) = party_events(opened(noisy(1.0)).plan, "a")
        with pytest.raises(PolicyRefusal, match="it accepts"):
            facts.afford((twice,))
        return adds(0.5)(broadcast, facts)

    own.begin(shown, session, 0, dear, "wards")
    assert len(spent(tmp_path / "afford")) == 1

    def meanwhile(broadcast: Broadcast, facts: RoundFacts) -> Contribution:
        PartyLedger(tmp_path / "shared").charge(events, None, run="others", round=1, again=False)
        return adds(0.5)(broadcast, facts)

    with pytest.raises(PolicyRefusal, match="it accepts"):
        party(tmp_path / "shared", stack, Policy(max_epsilon=limit)).begin(shown, session, 0, meanwhile, "w")
    assert spent(tmp_path / "shared") == [("others", 1, "")]


def test_without_events_nothing_is_charged_and_no_ledger_is_made(tmp_path: Path) -> None:
    ledger = PartyLedger(tmp_path / "none")
    ledger.charge((), 1.0, run="wards", round=1, again=False)
    ledger.require((), None)
    assert not ledger.folder.exists()


def test_a_data_set_has_a_ledger_of_its_own_and_a_shorter_one_is_a_copy_put_back(tmp_path: Path) -> None:
    stack = noisy()
    events = party_events(opened(stack).plan, "a")
    store = MemoryStore()
    named = PartyLedger(tmp_path, "wards", 1e-6, store)
    named.charge(events, None, run="one", round=1, again=False)
    held = Ledger.for_dataset(tmp_path, "wards", epsilon=math.inf, delta=1e-6, accountant="rdp")
    assert [entry.run for entry in held.entries()] == ["one"]
    assert (held.terms.dataset, held.terms.delta, held.terms.accountant) == ("wards", 1e-6, "rdp")
    assert list(tmp_path.glob("*.lock"))
    whole = held.path.read_bytes()
    named.charge(events, None, run="two", round=2, again=False)
    named.require(events, 1e6)
    for path in tmp_path.iterdir():
        path.unlink()
    held.path.write_bytes(whole)
    with pytest.raises(RollbackDetected, match="holds 1 charges, this node has seen 2"):
        named.charge(events, None, run="three", round=3, again=False)


def test_an_account_that_stayed_behind_when_its_folder_changed_is_missed(tmp_path: Path) -> None:
    """The store knew how long the ledger of a folder was: in another one it began anew, or from a copy."""
    events = party_events(opened(noisy()).plan, "a")
    store = MemoryStore()
    here, there = (PartyLedger(tmp_path / name, "wards", 1e-5, store) for name in ("here", "there"))
    here.charge(events, None, run="one", round=1, again=False)
    with pytest.raises(RollbackDetected, match=r"holds 0 charges, this node has seen 1: .* another folder"):
        there.charge(events, None, run="two", round=2, again=False)
    shutil.rmtree(there.folder)
    here.folder.rename(there.folder)
    there.charge(events, None, run="two", round=2, again=False)
    PartyLedger(tmp_path / "there", "other wards", 1e-5, store).charge(
        events, None, run="a", round=1, again=False
    )


class Two(PrivacyLayer):
    """Toy: every client spends, seen by two adversaries; client b spends more."""

    name = "two"

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        all_of = {"noise_multiplier": 2.0, "population": 4, "sample_size": 4}
        return (
            PrivacyEvent("FixedSizeGaussian", all_of, "client", "zero-out", "other clients", ""),
            PrivacyEvent("Gaussian", {"noise_multiplier": 9.0}, "client", "zero-out", "server", "b"),
        )


def test_what_a_client_pays_is_its_own_as_if_it_were_asked_in_every_round() -> None:
    stack = Stack([Two(), PlainSum()], Numbers(range=1.0))
    plan = opened(stack).plan
    (alone,) = party_events(plan, "a")
    assert (alone.kind, alone.facts) == ("Gaussian", {"noise_multiplier": 2.0})
    assert (alone.adversary, alone.party, alone.layer) == ("other clients", "", "two")
    both = party_events(plan, "b")
    assert [(event.adversary, event.party, event.layer) for event in both] == [
        ("other clients", "", "two"),
        ("server", "b", "two"),
    ]
    assert party_events(opened(Stack([SecAgg()], Numbers(range=1.0))).plan, "a") == ()
