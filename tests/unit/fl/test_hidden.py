"""What a run may tell of rounds beside noise, and of rounds whose choice of clients is secret; what a run keeps."""

from pathlib import Path

import numpy as np
import pytest

from fl.account import Account
from fl.round.counts import Count, decode, encode
from fl.round.hidden import plays_nobody, untimed, withheld
from fl.round.keeper import Keeper
from fl.round.result import RoundResult, Trip
from fl.round.run_files import RunFiles, load
from protocols import PlainSum
from protocols.layers import PrivacyLayer, RunFacts
from protocols.stack import Numbers, Stack
from protocols.statement import PrivacyEvent, Protection
from secagg import SecAgg

TRIP = Trip("input", 3.0, 1.0, 0.5, 0.25, 3, 2, 100, 200)


class Secret(PrivacyLayer):
    """Toy: its price counts on a secret choice of clients."""

    name = "secret"
    secret_sampling = True


def test_beside_noise_no_time_of_a_client_is_told() -> None:
    seconds = {"train": 1.0, "privacy_client": 2.0, "privacy_server": 3.0}
    told = untimed(RoundResult(1, ("a",), ("a",), seconds=seconds, trips=(TRIP,), waited=2.5))
    assert told.seconds == {"privacy_server": 3.0}
    assert told.trips == (Trip("input", 0.0, 0.0, 0.0, 0.25, 3, 2, 100, 200),)
    assert (told.asked, told.survivors) == (("a",), ("a",))


def test_where_the_choice_is_secret_simulated_time_is_withheld_too() -> None:
    told = withheld(RoundResult(1, ("a",), ("a",), trips=(TRIP,), waited=2.5, seconds={"train": 1.0}))
    assert told == RoundResult(1, (), withheld=True)


def test_a_round_of_nobody_is_played_where_its_price_assumes_one() -> None:
    stack = Stack([Secret(), PlainSum()])
    drawn = RunFacts(3, 9, 3, sampling="poisson")
    assert plays_nobody(stack, drawn)
    assert not plays_nobody(stack, drawn, 2)
    assert not plays_nobody(stack, RunFacts(3, 9, 3))
    assert not plays_nobody(Stack([Secret(), SecAgg()]), drawn)  # a sum of nobody's masked vectors is none
    assert not plays_nobody(Stack([PlainSum()]), drawn)
    assert not plays_nobody(stack, RunFacts(3, 9, 3, sampling="poisson", least_chosen=1))
    assert not plays_nobody(stack, RunFacts(3, 9, 3, sampling="poisson", failing=1e-9))


def test_a_public_count_that_is_not_sent_is_that_of_every_survivor() -> None:
    counts = (Count("steps", 9, public=3), Count("votes", 9, public=0), Count("seen", 9))
    sent = encode(counts, {"steps": 3, "votes": 0, "seen": 4})
    assert {name: block.tolist() for name, block in sent.items()} == {
        "count/steps": [3],
        "count/votes": [0],
        "count/seen": [4],
    }
    assert decode({"count/seen": sent["count/seen"]}, counts, 5) == {"steps": 15, "votes": 0, "seen": 4}


class Counting(PrivacyLayer):
    """Toy: has a state."""

    name = "counting"

    def state(self) -> dict[str, int]:
        return {"seen": 3}


@pytest.mark.parametrize("spoken", [False, True])
def test_a_round_is_kept_with_its_entry_and_what_was_said_of_it(spoken: bool, tmp_path: Path) -> None:
    stack, account = Stack([Counting(), SecAgg()], Numbers(range=1.0)), Account(run="own run")
    account.charge([PrivacyEvent("Gaussian", {"noise_multiplier": 2.0}, "client", "zero-out")], 1)
    files = RunFiles(tmp_path, None, "model.bin", lambda kept: b"model")
    keeper = Keeper(files, stack, account, 5, "FedAvg")
    played = RoundResult(1, ("a", "b"), ("a", "b"), session_number=4)
    protection = Protection("masks", "semi-honest", "inputs", {}, (), "few", ())
    statement = account.statement(stack, protection, []) if spoken else None
    keeper.keep([], {}, {}, {})
    begun = load(tmp_path)
    assert begun is not None
    assert (begun.session, begun.statement) == (0, None)
    keeper.keep([played], {}, {}, {"seed": 3}, statement, played, hold=True)
    assert files.record.last is None  # the checkpoint alone
    keeper.keep([played], {"w": np.ones(2)}, {"v": np.zeros(1)}, {"seed": 3}, statement, played)
    assert files.record.last is not None
    body = files.record.last.body
    assert (body["round"], body["of"], body["number"]) == (1, 5, 4)
    assert body.get("statement") == (statement.digest().hex() if statement else None)
    kept = load(tmp_path)
    assert kept is not None
    assert (kept.kind, kept.made_with, kept.session, kept.run) == ("FedAvg", {"seed": 3}, 4, account.run)
    assert (kept.layers, kept.events) == ({"counting": {"seen": 3}}, tuple(account.events))
    assert kept.statement == (statement.to_json() if statement else None)
    assert (kept.model["w"].tolist(), kept.strategy["v"].tolist()) == ([1, 1], [0])
    keeper.keep([played, played], {}, {}, {}, statement)
    assert {name: files.record.last.body.get(name) for name in ("round", "of", "asked")} == {
        "round": 2,
        "of": 5,
        "asked": None,
    }
