"""Ways in which a server once singled a client out of a round, or a round went on unpaid, planted again: the test that
stands against each finds it.
"""

import hashlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from dp import ClientDP
from fl import IFCA, RFA, FedBuff, GroupMedian, RandomK
from fl.account import Account
from fl.compression import Compression
from fl.computation import LocalComputation
from fl.coordinator import Coordinator
from fl.engines.memory import MemoryEngine
from fl.round import Manifest, RoundTerms
from fl.round.buffers import Buffers
from fl.round.chain import Chain
from fl.sampling import Participants
from fl.strategies.counted import CHOICE, COUNTS, NONE, CountedChoice
from fl.strategies.resending import Resending
from fl.strategies.stepped import Stepped
from protocols.party_state import PartyState
from protocols.randomness import SystemRandom
from protocols.roundplan import RoundPlan
from protocols.stack import Stack
from tests.flower import test_flower_buffers
from tests.unit.fl import test_clusters as clusters
from tests.unit.fl import test_compression as compression
from tests.unit.fl import test_fedbuff as buffers
from tests.unit.fl import test_fedbuff_clients as buffer_clients
from tests.unit.fl import test_group_median as medians
from tests.unit.fl import test_manifests as manifests
from tests.unit.fl import test_participants as participants
from tests.unit.fl import test_rfa as rfa
from tests.unit.fl import test_round_kinds as kinds
from tests.unit.fl import test_round_terms as terms
from tests.unit.fl import test_secret_sampling as secrecy
from tests.unit.fl import test_strategy_hooks as hooks

PLAY = sys.modules["fl.round.play"]


@dataclass(frozen=True)
class Planted:
    """name: the defect. of, attribute, new: what is put where while it is planted. caught_by: the test that fails."""

    name: str
    of: Any
    attribute: str
    new: Any
    caught_by: Callable[[], None]


def one_by_one(played: Any, payer: Any, parts: Any, asked: Any, place: int, names: tuple[str, ...]) -> None:
    payer.charge(parts[place].plan.events(tuple(names)), parts[place].number)
    played.paid.append(parts[place])


def model_alone(told: RoundTerms) -> bytes:
    return hashlib.sha256(told.model + told.configuration).digest()


def believed(*_: Any) -> None:
    return None


def chosen_anew(own: CountedChoice, facts: Any, choose: Any) -> int | None:
    choice, public = choose(), facts.public.get(own.name, {})
    PartyState.of(facts, own.name).keep({})
    return choice if choice is None or COUNTS not in public or public[COUNTS][choice] >= 3 else None


def sums_of_an_abandoned_round() -> None:
    with tempfile.TemporaryDirectory() as folder:
        medians.test_sums_that_opened_in_an_abandoned_round_are_told_and_counted(Path(folder))


def hidden_ifca() -> None:
    with tempfile.TemporaryDirectory() as folder:
        secrecy.test_no_file_of_a_hidden_run_tells_who_took_part("ifca", Path(folder))


def names_of_members(own: Stepped) -> dict[str, Any]:
    names = np.frombuffer("\0".join(own._members).encode(), np.uint8)
    return {"at": np.array([own._step, own._closed]), "members": names.astype(np.float64)}


def told_another_option() -> None:
    terms.test_a_layer_with_another_option_is_refused_by_name_with_both_values("client-dp.relation")


DEFECTS = [
    Planted(
        "terms left out of the digest",
        RoundTerms,
        "digest",
        model_alone,
        terms.test_another_round_has_another_digest,
    ),
    Planted(
        "one part left out",
        RoundTerms,
        "encode",
        lambda told: told.run.encode(),
        terms.test_changing_any_one_part_of_what_is_shown_changes_the_digest,
    ),
    Planted("a server's terms believed", RoundTerms, "require", believed, told_another_option),
    Planted(
        "a round that was not planned",
        RoundTerms,
        "require",
        believed,
        lambda: terms.test_a_round_that_was_not_planned_is_refused(10_000),
    ),
    Planted(
        "options not compared",
        sys.modules["protocols.stack"],
        "options_of",
        lambda *_: {},
        told_another_option,
    ),
    Planted(
        "planned events left out",
        RoundPlan,
        "planned",
        lambda *_: (),
        terms.test_planned_noise_that_no_option_shows_is_bound,
    ),
    Planted(
        "a fixed clip follows the server",
        ClientDP,
        "_clip",
        lambda layer, facts: facts.number_for(layer.name, "clip", layer.clip),
        terms.test_a_fixed_clip_is_the_nodes_own_whatever_is_broadcast,
    ),
    Planted(
        "sums charged one after the other",
        PLAY,
        "_charge",
        one_by_one,
        kinds.test_a_budget_with_room_for_one_of_two_sums_lets_nothing_leave,
    ),
    Planted(
        "one number for the sums of a round",
        MemoryEngine,
        "session_number",
        lambda engine, number, sums: number,
        kinds.test_several_sums_of_several_rounds_share_one_set_up,
    ),
    Planted(
        "a version for one client",
        Manifest,
        "require_alike",
        believed,
        manifests.test_a_version_made_for_one_client_is_refused_by_server_and_client,
    ),
    Planted(
        "a base that nobody checks",
        Manifest,
        "require_base",
        believed,
        manifests.test_a_client_notices_a_model_of_its_own_whatever_its_work_makes,
    ),
    Planted(
        "factors of any age",
        Manifest,
        "require",
        believed,
        manifests.test_a_factor_follows_from_the_age_of_a_version_that_can_be,
    ),
    Planted(
        "state kept by owner alone",
        PartyState,
        "_key",
        lambda state, kind: f"kept/{state.owner}/{kind}",
        hooks.test_runs_over_one_store_disturb_each_other_in_no_round,
    ),
    Planted(
        "a step's sum that opens without a client of it",
        RFA,
        "least",
        lambda *_: 1,
        rfa.test_every_client_insists_on_all_survivors_of_the_step,
    ),
    Planted(
        "a version that falls below its least by those who leave",
        Manifest,
        "least",
        1,
        manifests.test_a_version_keeps_its_least_whoever_leaves,
    ),
    Planted(
        "another model in a version's past",
        Chain,
        "remember",
        believed,
        buffer_clients.test_a_client_remembers_the_models_that_it_was_shown,
    ),
    Planted(
        "a version of no chain",
        Manifest,
        "__post_init__",
        believed,
        buffer_clients.test_a_client_refuses_a_manifest_that_keeps_fewer_together_than_its_federation_says,
    ),
    Planted(
        "a version that is rare in a buffer",
        Buffers,
        "together",
        1,
        buffers.test_no_version_falls_below_its_least_by_those_who_leave,
    ),
    Planted(
        "several contributions to one buffer",
        FedBuff,
        "begin",
        believed,
        buffer_clients.test_a_client_contributes_once_to_each_buffer,
    ),
    Planted(
        "a chain that nobody signed",
        Chain,
        "require_signed",
        believed,
        test_flower_buffers.test_nodes_take_chains_that_their_server_signed,
    ),
    Planted(
        "a buffer that is not charged where it fails",
        Account,
        "charge",
        believed,
        buffers.test_every_buffer_is_charged_for_everybody_and_amplifies_nothing,
    ),
    Planted(
        "amplification claimed for turns",
        Stack,
        "_require_secrecy",
        believed,
        lambda: participants.test_turns_windows_and_speed_amplify_nothing(
            {"sampling": "round-robin"}, "round-robin"
        ),
    ),
    Planted(
        "turns that nobody checks",
        Participants,
        "require_chosen",
        believed,
        participants.test_a_client_knows_whose_turn_and_window_it_is,
    ),
    Planted(
        "one update to one point of the median twice",
        Resending,
        "source",
        lambda own, task, vector: vector.tobytes(),
        rfa.test_a_client_sends_no_update_to_one_point_twice_and_believes_no_steps,
    ),
    Planted(
        "a cluster of one sends its update",
        CountedChoice,
        "of",
        lambda own, facts, choose: choose(),
        clusters.test_nobody_sends_to_a_cluster_that_is_too_small,
    ),
    Planted(
        "a choice of a cluster that is made a second time",
        CountedChoice,
        "of",
        chosen_anew,
        clusters.test_clients_send_by_the_choice_that_was_counted_however_their_data_look_by_now,
    ),
    Planted(
        "counts that nobody checks",
        CountedChoice,
        "_possible",
        lambda own, public, clients: np.resize(public[COUNTS], own.choices + 1),
        clusters.test_impossible_counts_are_refused_and_so_is_who_was_not_counted,
    ),
    Planted(
        "counted clients exchanged for others",
        CountedChoice,
        "_kept",
        lambda own, state, facts: int(state.arrays().get(CHOICE, NONE)),
        lambda: clusters.test_counted_clients_are_not_exchanged_and_none_is_left_out({"1", "2"}),
    ),
    Planted(
        "a residual of a copy that nobody chose",
        IFCA,
        "undelayed",
        property(lambda own: False, lambda own, value: None),
        lambda: clusters.test_no_residual_of_a_copy_that_a_client_chose_once_is_sent_later(RandomK(0.5)),
    ),
    Planted(
        "a file that says who was chosen in secret",
        Stepped,
        "state",
        names_of_members,
        hidden_ifca,
    ),
    Planted(
        "a cluster that falls below the least by those who leave",
        IFCA,
        "least",
        lambda own, number, clients, public: 1,
        clusters.test_every_client_insists_that_no_cluster_falls_below_the_least,
    ),
    Planted(
        "a residual behind a clip",
        Compression,
        "_takes",
        lambda own, given: given,
        compression.test_layers_of_noise_compose_in_the_sound_order_alone,
    ),
    Planted(
        "as many sums of one set of updates as clients",
        Coordinator,
        "_crowd",
        lambda own: 1,
        rfa.test_no_step_has_as_many_sums_as_clients_where_a_secure_sum_alone_hides_updates,
    ),
    Planted(
        "a broken update that ends its client's round beside noise",
        RoundPlan,
        "counts_broken_as_zero",
        False,
        lambda: rfa.test_a_broken_update_counts_as_zero_beside_noise_and_ends_nothing(
            RFA(0.3, 2), ClientDP(noise_multiplier=1e-3), np.nan
        ),
    ),
    Planted(
        "a vector that follows a metric beside noise on examples",
        LocalComputation,
        "_extras",
        lambda own, task, *given: own.setup.strategy.extras(task, *given),
        compression.test_beside_noise_on_examples_no_vector_follows_a_metric,
    ),
    Planted(
        "groups that are drawn anew in every round",
        GroupMedian,
        "_lot",
        lambda own, client: SystemRandom().bytes(32),
        medians.test_groups_are_drawn_once_and_their_sums_of_all_rounds_tell_no_more_than_those_of_one,
    ),
    Planted(
        "a group that was opened in an abandoned round and is not counted",
        GroupMedian,
        "opened",
        believed,
        sums_of_an_abandoned_round,
    ),
    Planted(
        "a group of a median that opens below its least",
        GroupMedian,
        "least",
        lambda *_: 1,
        medians.test_a_group_with_too_few_survivors_abandons_the_round,
    ),
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_planted_defect_is_found(defect: Planted) -> None:
    with (
        patch.object(defect.of, defect.attribute, defect.new),
        pytest.raises((Exception, pytest.fail.Exception)),
    ):
        defect.caught_by()
    defect.caught_by()
