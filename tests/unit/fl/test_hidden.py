"""What a run may tell of rounds beside noise, and of rounds whose choice of clients is secret; what a run keeps."""

from pathlib import Path

import pytest

from fl.account import Account
from fl.round.counts import Count, decode, encode
from fl.round.hidden import plays_nobody, untimed, withheld
from fl.round.keeper import Keeper
from fl.round.kept import CHECKPOINT, RunFiles
from fl.round.result import RoundResult, Trip
from protocols import PlainSum
from protocols.layers import PrivacyLayer, RunFacts
from protocols.stack import Numbers, Stack
from protocols.statement import Protection
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


@pytest.mark.parametrize("spoken", [False, True])
def test_a_round_is_kept_with_its_entry_and_what_was_said_of_it(spoken: bool, tmp_path: Path) -> None:
    stack = Stack([SecAgg()], Numbers(range=1.0))
    files = RunFiles(tmp_path, None, "model.bin", lambda kept: b"model")
    keeper, account = Keeper(files, stack, Account(), 5, "FedAvg"), Account()
    played = RoundResult(1, ("a", "b"), ("a", "b"), session_number=4)
    protection = Protection("masks", "semi-honest", "inputs", {}, (), "few", ())
    statement = account.statement(stack, protection, []) if spoken else None
    keeper.keep([], {}, {}, {})
    keeper.keep([played], {}, {}, {}, statement, played, hold=True)
    assert files.record.last is None  # the checkpoint alone
    assert (tmp_path / CHECKPOINT).exists()
    keeper.keep([played], {}, {}, {}, statement, played)
    assert files.record.last is not None
    body = files.record.last.body
    assert (body["round"], body["of"], body["number"]) == (1, 5, 4)
    assert body.get("statement") == (statement.digest().hex() if statement else None)
    keeper.keep([played, played], {}, {}, {}, statement)
    assert {name: files.record.last.body.get(name) for name in ("round", "of", "asked")} == {
        "round": 2,
        "of": 5,
        "asked": None,
    }
