"""A search of clip, rate and rounds: on data apart, kept as it goes, and what it would cost on the data themselves."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import harness
from benchmarks.dp.again import compared, main
from dp.accountants import RDPAccountant
from dp.accountants.selected import SelectedAccountant, logarithmic
from dp.event_json import to_fact
from dp.events import DiscreteGaussianSum, Gaussian, Relation, Unit
from fl.cli import invoke
from fl.data import load
from fl.data.part import part
from fl.tradeoff.price import price, spent
from fl.tradeoff.search import Search
from fl.tradeoff.sweep import axes, read, tuned
from protocols.errors import Misuse
from protocols.statement import PrivacyEvent

SWEEP = """
data = "part:of=digits"
clients = 4
partition = "iid"
model = "logistic"
rounds = 1
[tradeoff]
layers = ["none", "client-dp"]
epsilons = ["none", 8.0, 1.0]
sums = ["none"]
tuned = "found.toml"
[tradeoff.search]
data = "part:of=digits,which=apart"
trials = 2
rounds = [1, 2]
"""


def test_the_parts_of_a_set_share_no_example_and_the_test_part_is_in_neither() -> None:
    whole, rest, apart = load("digits"), part("digits"), load("part:of=digits,which=apart")
    rows = [
        {row.tobytes() for row in np.concatenate(blocks)}
        for blocks in ((rest.x_train,), (apart.x_train, apart.x_test), (whole.x_test,))
    ]
    assert len(rest.y_train) + len(apart.y_train) + len(apart.y_test) == len(whole.y_train)
    assert np.array_equal(rest.x_test, whole.x_test)
    twins = {row.tobytes() for row in whole.x_train} & rows[2]  # of different people, alike bit for bit
    assert not rows[0] & rows[1] or len(np.unique(whole.x_train, axis=0)) < len(whole.x_train)
    assert rows[1] & rows[2] <= twins
    with pytest.raises(Misuse, match="share in"):
        part("digits", share=1.0)


def test_of_natural_clients_whole_clients_are_set_apart() -> None:
    options = "of=tests.unit.test_tradeoff_search:wards,share=0.5"
    rest, apart = load(f"part:{options}"), load(f"part:{options},which=apart")
    assert rest.clients_train is not None
    assert apart.clients_train is not None
    assert rest.clients_test is not None
    held = set(rest.clients_train), set(apart.clients_train)
    assert not held[0] & held[1]
    assert len(held[0]) == len(held[1]) == 2
    assert set(rest.clients_test) == held[0]


def wards() -> Any:
    """Four clients with ten examples each, which hold the client's number."""
    from fl.data import DataSet

    owner = np.repeat(np.arange(4), 10)
    x, y = owner[:, None].astype(np.float32), np.tile(np.arange(2), 20)
    return DataSet("wards", x, y, x, y, 2, "a test", "", owner, owner, ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    "own, searched",
    [
        ("part:of=digits", "part:of=digits,which=rest"),
        ("part:of=digits", "part:of=digits,which=apart,share=0.9"),
        ("part:of=digits", "digits"),
        ("digits", "part:of=digits,which=apart"),
        ("part:of=digits,which=apart", "part:of=digits,which=apart,share=0.5"),
    ],
)
def test_a_search_on_examples_of_the_sweep_is_refused_under_any_name(
    own: str, searched: str, tmp_path: Path
) -> None:
    config = tmp_path / "sweep.toml"
    config.write_text(
        SWEEP.replace("part:of=digits,which=apart", searched).replace('"part:of=digits"', f'"{own}"')
    )
    with pytest.raises(Misuse, match=r"examples are the sweep's own"):
        Search.of(read(config))


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "femnist"])
def test_the_two_parts_of_a_set_are_apart(name: str) -> None:
    """As the committed sweeps have them, whatever people look alike."""
    assert Search.of(read(Path(f"benchmarks/tradeoff/{name}.toml")))[0].trials == 5


def test_the_price_of_a_search_is_that_of_the_trials_that_its_settings_follow() -> None:
    """Two at epsilon 8, of everybody, and one at 1 that began there; one client of the last spends twice as much."""

    def facts(noise: float, *parties: str) -> list[PrivacyEvent]:
        event = Gaussian(noise_multiplier=noise, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
        return [to_fact(event, party=party) for party in parties]

    trials = spent(facts(0.5, "")) + spent(facts(0.5, "")) + spent(facts(3.0, "a", "b", "b"))
    account = RDPAccountant()
    for noise in (0.5, 0.5, 3.0, 3.0):
        account.add(Gaussian(noise_multiplier=noise, unit=Unit.CLIENT, relation=Relation.ZERO_OUT))
    assert price({"spent": trials}, 1e-5) == pytest.approx(account.epsilon(1e-5))
    assert price({"trials": 3}, 1e-5) is None


def test_trials_that_no_epsilon_bounds_cost_infinite() -> None:
    noise = DiscreteGaussianSum(
        share_variance=100.0,
        shares=1,
        sensitivity=100.0,
        dims=100,
        sampler_distance=2.0**-100,
        unit=Unit.CLIENT,
        relation=Relation.ZERO_OUT,
    )
    (once,) = spent([to_fact(noise, party="")])
    assert price({"spent": [{**once, "times": 100}]}, 1e-5) == "infinite"


def test_a_search_that_began_from_one_that_does_not_say_what_it_spent_has_no_price() -> None:
    search = {"trials": 2, "spent": []}
    tables = [
        {"layer": "client-dp", "epsilon": 8.0, "search": {"trials": 3}},
        {"layer": "client-dp", "epsilon": 4.0, "search": {**search, "after": 8.0}},
        {"layer": "local-dp", "epsilon": 4.0, "search": {**search, "after": 8.0}},
        {"layer": "sample-dp", "epsilon": 4.0, "search": search},
    ]
    known = axes({"tuned": tables})
    found = [tuned(known, table["layer"], 2.0)["search"] for table in tables[1:]]
    assert [price(each, 1e-5) is None for each in found] == [True, True, False]
    assert [each.get("played") for each in found] == [None, None, 2]


def test_a_search_keeps_what_it_finds_goes_on_and_is_read_by_the_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    config, found = tmp_path / "sweep.toml", tmp_path / "found.toml"
    config.write_text(SWEEP)
    assert read(config).axes.tuned == ()
    assert invoke(["tradeoff", str(config), "--search", "--processes", "1", "--json"]) == 0
    tables = tomllib.loads(found.read_text())["tuned"]
    assert {(table["layer"], table["epsilon"]) for table in tables} == {
        ("none", "none"),
        ("client-dp", 8.0),
        ("client-dp", 1.0),
    }
    private, later = (table for table in tables if table["layer"] == "client-dp")
    assert "after" not in private["search"]
    assert later["search"]["after"] == 8.0
    whole = [tuned(read(config).axes, "client-dp", epsilon)["search"] for epsilon in (8.0, 1.0)]
    assert [search["played"] for search in whole] == [2, 4]
    assert private["search"]["apart_from"] == "part:of=digits"
    first, both = (price(search, 1e-5) for search in whole)
    assert isinstance(first, float)
    assert isinstance(both, float)
    assert 8 < first < both
    assert 0.05 <= private["clip"] <= 5
    assert private["rounds"] in (1, 2)
    assert private["search"]["trials"] == 2
    assert list(read(config).axes.tuned) == tables
    before = found.read_bytes()
    assert invoke(["tradeoff", str(config), "--search", "--json"]) == 0
    assert found.read_bytes() == before, "nothing was left to search"
    config.write_text(SWEEP.replace(",which=apart", ""))
    capsys.readouterr()
    assert invoke(["tradeoff", str(config), "--search"]) == 2
    assert "are the sweep's own" in capsys.readouterr().err
    assert invoke(["tradeoff", str(config)]) == 2


@pytest.mark.parametrize("noise, rounds, runs", [(2.0, 10, 6.0), (5.0, 10, 12.0), (1.0, 3, 20.0)])
def test_the_price_of_the_best_run_is_that_of_dp_accounting(noise: float, rounds: int, runs: float) -> None:
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    event = Gaussian(noise_multiplier=noise, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
    theirs = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    once = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(noise), rounds)
    theirs.compose(dp_accounting.dp_event.RepeatAndSelectDpEvent(once, runs, 0))
    ours = SelectedAccountant(runs).add(event, rounds)
    assert ours.epsilon(1e-3) == pytest.approx(theirs.get_epsilon(1e-3), rel=1e-9)
    assert ours.delta(ours.epsilon(1e-3)) == pytest.approx(1e-3, rel=1e-6)
    assert RDPAccountant().add(event, rounds).epsilon(1e-3) < ours.epsilon(1e-3)


def test_the_logarithmic_distribution_has_the_mean_that_was_asked_for() -> None:
    gamma = logarithmic(7.0)
    assert (1 / gamma - 1) / np.log(1 / gamma) == pytest.approx(7.0)
    with pytest.raises(Misuse, match="runs: expected a number from 1"):
        SelectedAccountant(1.0)


def test_rows_agree_within_the_spread_of_their_seeds_and_no_further() -> None:
    kept = [{"layer": "a", "epsilon": e, "accuracies": [50.0, 50.2, 49.8]} for e in (1.0, 2.0)]
    again = [{"layer": "a", "epsilon": e, "accuracies": [x, x + 0.2]} for e, x in ((1.0, 50.1), (2.0, 58.0))]
    verdicts = [abs(before - now) <= most for _, before, now, most in compared(kept, again)]
    assert verdicts == [True, False]


def test_a_row_that_differs_or_is_missing_fails_with_a_sentence_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kept,) = harness.read_all("dp.femnist")
    rows = [dict(row) for row in kept.figures["rows"]]
    file = tmp_path / "femnist.json"

    def verdict(again: list[dict[str, object]]) -> tuple[int, str]:
        file.write_text(json.dumps({"suite": "dp", "case": "femnist", "figures": {"rows": again}}))
        return main([str(file)]), capsys.readouterr().err

    assert verdict(rows) == (0, "")
    assert verdict(rows[1:]) == (1, "1 were not measured again: femnist: layer none, epsilon None.\n")
    rows[1]["accuracies"] = [90.0, 91.0]
    code, told = verdict(rows)
    assert code == 1
    assert told.startswith(
        "1 differ by more than the spread over seeds explains: femnist: layer client-dp, epsilon 16.0"
    )
    file.write_text("")
    with pytest.raises(SystemExit, match="no whole result"):
        main([str(file)])
