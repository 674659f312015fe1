"""Every way in which a federation once printed an epsilon that did not hold, planted again: the check that stands
against it finds it, and passes the code as it is.
"""

import sys
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import torch

from dp import ClientDP, DistributedDP, Ledger, LocalDP, SampleDP, distributed_plan, ledger_store
from dp.event_json import decode, to_fact
from dp.events import Gaussian, Relation, Unit
from dp.ledger_head import SignedHead
from dp.sample import factors, layer, loader, optimizers, targets
from dp.sample.guard import StepGuard
from fl import account, computation, coordinator, federation, seeds
from fl.account import Account
from fl.seeds import derive
from protocols.errors import BudgetExceeded
from protocols.layers import Aggregate, RoundFacts, RunFacts, Signal, SumFacts
from protocols.stack import Stack
from secagg import SecAggPlus
from tests.defects.dp import account_rig as check
from tests.defects.dp import ledger_rig, release_rig

pytestmark = pytest.mark.filterwarnings("ignore")


class DemandLowered(DistributedDP):
    """As few survivors as were asked will do, in the session and when the sum is opened."""

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        made = super().transform(given, facts)
        return replace(made, min_survivors=min(made.min_survivors, len(facts.clients)))

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        return super().decode(aggregate, replace(opened, survivors=facts.clients * 4), facts)


class DemandForgotten(DemandLowered):
    """The same for clients: the round is made as if more had been asked."""

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        made = super().transform(given, replace(facts, clients=facts.clients * 4))
        return replace(made, min_survivors=min(made.min_survivors, len(facts.clients)))


class CountsCharges(Ledger):
    """Believes a kept head whose number of charges fits."""

    def verify(self, head: Any = None, public_key: bytes | None = None) -> Any:
        verdict = super().verify()
        return (
            verdict if head is None or head.charges == verdict.charges else super().verify(head, public_key)
        )


class ClaimsTheServer(DistributedDP):
    protects_sums_only = False


class FollowsTheSize(SampleDP):
    """Rate, steps and noise from what the client really holds."""

    def _account(self, task: Any, facts: RoundFacts) -> Any:
        self.examples = len(task.loader.dataset)
        return super()._account(task, facts)


def one_sum(self: Account) -> Any:
    lines = self._priced(self.events)
    return (replace(lines[0], epsilon=sum(line.epsilon for line in lines)),) if lines else ()


class RateAlone(ClientDP):
    """The chance that too few are chosen is left out of the price."""

    def _chance(self, run: RunFacts) -> float:
        return 0.0


BATCH, FINISH, AFTER = StepGuard.batch, StepGuard.finish, StepGuard.after_step


def any_batch(self: StepGuard, size: int, *, first: bool, last: bool) -> None:
    """As many steps as the loop takes."""
    self.planned = max(self.planned, self.drawn + 1)
    BATCH(self, size, first=first, last=last)


def any_end(self: StepGuard) -> int:
    """As few steps as the loop takes."""
    self.planned = self.drawn
    return FINISH(self)


def evenly(self: SampleDP, client: str, run: RunFacts) -> Gaussian:
    """One Gaussian a round that costs over the whole run what its steps do."""
    statement: Any = {"unit": Unit.EXAMPLE, "relation": Relation.ADD_REMOVE}
    multiplier = self.price.multiplier(lambda z: Gaussian(noise_multiplier=z, **statement), run.rounds, run)
    return Gaussian(noise_multiplier=multiplier, **statement)


KEPT, REFUSE = layer._kept, SampleDP._refuse_overspending


def with_verdict(account: layer.ClientAccount) -> dict[str, float]:
    return {"checked": account.engine is not None and account.engine.checked, **KEPT(account)}


def to_the_second() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def a_thousandth_more(self: SampleDP, account: layer.ClientAccount, facts: RoundFacts) -> None:
    loose = copy(self)
    loose.price = replace(self.price, epsilon=1.001 * (self.price.epsilon or 0.0))
    REFUSE(loose, account, facts)


@dataclass(frozen=True)
class Defect:
    """sound: the check on the code as it is. broken: the same with the defective layer, if the defect is in a layer.
    patches: owner, name, and what takes its place."""

    sound: Callable[[], bool]
    broken: Callable[[], bool] | None = None
    patches: tuple[tuple[Any, str, Any], ...] = ()


PLAY, HEAD_OF = sys.modules["fl.round.play"], ledger_store.head_of
DEFECTS = {
    "a secret choice: rounds for nobody skipped without a charge": Defect(
        check.planned_rounds_are_charged,
        patches=tuple((PLAY, name, lambda *_: False) for name in ("plays_nobody", "is_hidden")),
    ),
    "a secret choice: the rule about too few left out of the price": Defect(
        check.rounds_that_fail_too_often_are_refused,
        partial(check.rounds_that_fail_too_often_are_refused, RateAlone),
    ),
    "a secret choice: numbers beyond 64 looked at in powers of two": Defect(
        check.every_number_is_looked_at,
        patches=((coordinator, "carried", lambda *_: (65, 0.0)),),
    ),
    "noise of clients who may work with the server is counted": Defect(
        check.honest_noise_bears_the_claim,
        patches=((SecAggPlus, "withstands", lambda *_: 0),),
    ),
    "a broken update ends the run and is named": Defect(
        check.broken_clients_are_told_nowhere,
        patches=((ClientDP, "counts_broken_as_zero", False),),
    ),
    "a broken example ends the run": Defect(
        check.broken_examples_end_nothing,
        patches=((factors, "counted", lambda parts, squares: (parts, squares, 0)),),
    ),
    "a client's number of examples in the checkpoint, and in the sum's width": Defect(
        check.sizes_and_seconds_are_told_nowhere, patches=((Stack, "hides_sizes", False),)
    ),
    "seconds of training told beside noise": Defect(
        check.sizes_and_seconds_are_told_nowhere, patches=((PLAY, "untimed", lambda result: result),)
    ),
    "a checkpoint says whether a client holds an example that could be checked": Defect(
        check.a_checkpoint_follows_no_example, patches=((layer, "_kept", with_verdict),)
    ),
    "seconds of training in a ledger": Defect(
        ledger_rig.a_ledger_tells_no_time_of_day, patches=((ledger_store, "_today", to_the_second),)
    ),
    "a planned run's price exceeded by a thousandth": Defect(
        ledger_rig.a_plan_costs_at_most_what_is_printed,
        patches=((SampleDP, "_refuse_overspending", a_thousandth_more),),
    ),
    "a round paid for and cut off counts for another guarantee": Defect(
        check.a_resumed_round_keeps_its_guarantee,
        patches=((account, "_charged", lambda entry: to_fact(decode(entry.event), party=entry.party)),),
    ),
    "a secret choice: how many took part is told": Defect(
        check.counts_are_told_nowhere, patches=((federation, "withheld", lambda result: result),)
    ),
    "shares: the demand lowered to who was asked": Defect(
        check.noise_is_opened_for_enough, partial(check.noise_is_opened_for_enough, DemandLowered)
    ),
    "shares of clients: the demand lowered to who was asked": Defect(
        partial(check.noise_is_opened_for_enough, unit="client"),
        partial(check.noise_is_opened_for_enough, DemandForgotten, unit="client"),
    ),
    "shares of clients: too few chosen end the whole run": Defect(
        check.a_run_goes_on_after_too_few, patches=((federation, "Aborted", BudgetExceeded),)
    ),
    "a secret choice on Flower: how many took part is in its files": Defect(
        check.flower_files_tell_no_counts, patches=((federation, "withheld", lambda result: result),)
    ),
    "a ledger's file forged as a whole": Defect(
        ledger_rig.a_forged_file_is_found, partial(ledger_rig.a_forged_file_is_found, CountsCharges)
    ),
    "a ledger's head signed by somebody else": Defect(
        ledger_rig.a_forged_file_is_found, patches=((SignedHead, "check_signature", lambda *_: None),)
    ),
    "shares: one share of noise claimed against a server that reads it": Defect(
        partial(check.claims_against_the_server_hold, DistributedDP),
        partial(check.claims_against_the_server_hold, ClaimsTheServer),
    ),
    "sample-dp: rate and steps follow a private size": Defect(
        check.steps_follow_no_private_size, partial(check.steps_follow_no_private_size, FollowsTheSize)
    ),
    "sample-dp: a batch sampler passed over": Defect(
        check.each_client_trains_on_its_own_examples, patches=((loader, "_insist", lambda given: None),)
    ),
    "sample-dp: the data set within reach of the loop": Defect(
        check.the_loop_reads_no_example_beside_its_batches,
        patches=((loader.PrivateLoader, "dataset", property(lambda self: self._batches.dataset)),),
    ),
    "sample-dp: more steps than planned": Defect(
        ledger_rig.no_more_is_spent_than_planned, patches=((StepGuard, "batch", any_batch),)
    ),
    "sample-dp: a pass left before its end": Defect(
        ledger_rig.no_more_is_spent_than_planned, patches=((StepGuard, "finish", any_end),)
    ),
    "sample-dp: a client sits out where nothing can be checked": Defect(
        check.one_example_brings_one_example,
        patches=((loader.PrivateLoader, "one_by_one", lambda self: setattr(self._parts.batches, "size", 0)),),
    ),
    "sample-dp: a frozen layer stepped by its raw gradient": Defect(
        check.a_frozen_layer_stays,
        patches=(
            (optimizers, "raw_gradient", lambda *_: None),
            (StepGuard, "after_step", lambda self, released: AFTER(self, dict(self._last))),
        ),
    ),
    "sample-dp: a learning rate that follows the loss": Defect(
        check.step_sizes_follow_no_loss, patches=((optimizers, "changed_number", lambda *_: None),)
    ),
    "sample-dp: a Gaussian a round in place of sampled steps": Defect(
        ledger_rig.every_prefix_costs_at_most_what_is_printed, patches=((SampleDP, "_spent", evenly),)
    ),
    "sample-dp: a node charged by what it spends evenly": Defect(
        ledger_rig.a_node_is_charged_what_its_steps_cost, patches=((SampleDP, "_spent", evenly),)
    ),
    "a client's hook moves the model past clip and noise": Defect(
        release_rig.hooks_move_no_model, patches=((computation, "difference", lambda *_: None),)
    ),
    "sample-dp: the loop's random numbers follow the public seed": Defect(
        release_rig.what_a_loop_draws_is_secret,
        patches=(
            (computation.LocalComputation, "_draws", lambda self, own: derive(0, own.number, own.client)),
        ),
    ),
    "an evaluation counted in its own adversary's line alone": Defect(
        release_rig.an_evaluation_is_counted_against_whoever_sees_it,
        patches=((account, "_nearest", lambda key, _, listed: [each for each in listed if each[0] == key]),),
    ),
    "shares: a client's own share counted against it": Defect(
        release_rig.a_client_knows_its_own_share,
        patches=((distributed_plan, "unknown", lambda survivors, colluders: survivors - colluders),),
    ),
    "sample-dp: the loop's draws follow 32 bits": Defect(
        release_rig.a_loops_draws_follow_no_seed,
        patches=((seeds, "draw_secretly", torch.seed),),
    ),
    "sample-dp: a seed that the loop sets and puts back": Defect(
        release_rig.a_forked_seed_is_seen, patches=((targets, "insist_unseeded", lambda seed: None),)
    ),
    "an evaluation whose noise the server adds": Defect(
        release_rig.an_evaluation_tells_the_server_no_more_than_the_run,
        patches=((Stack, "adversaries", property(lambda self: {})),),
    ),
    "one sum over units and deltas": Defect(
        check.each_unit_has_its_own_line, patches=((Account, "guarantees", one_sum),)
    ),
    "a ledger whose last charge was cut off": Defect(
        partial(ledger_rig.tampering_is_found, ledger_rig.CUT),
        patches=((ledger_store, "check_head", lambda connection: (0, "")),),
    ),
    "a ledger whose budget was raised": Defect(
        partial(ledger_rig.tampering_is_found, ledger_rig.RAISED),
        patches=((ledger_store, "head_of", lambda terms, charges, last: HEAD_OF({}, charges, last)),),
    ),
    "a federation is built whose event has no price": Defect(
        check.what_has_no_price_is_refused_when_built,
        patches=((Account, "check", lambda *_: None),),
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_the_sound_code_passes_and_the_defect_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defect = DEFECTS[name]
    assert defect.sound()
    for owner, name_in_owner, instead in defect.patches:
        monkeypatch.setattr(owner, name_in_owner, instead)
    assert not (defect.broken or defect.sound)()


def test_claims_of_a_layer_whose_noise_is_whole_hold_against_the_server() -> None:
    assert check.claims_against_the_server_hold(LocalDP)
