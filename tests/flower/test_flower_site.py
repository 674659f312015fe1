"""A node's site.toml and node-config: every key of its own type and range, by name; nobody else may write it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dp import Ledger
from dp.event_json import to_fact
from dp.events import Gaussian, Relation, Unit
from fl.flower.arrays import arrays_of
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.node_party import told
from fl.network.site import CONFIG_KEY, FILE, load_site
from fl.round.party_ledger import LEDGER
from protocols.errors import Misuse, RollbackDetected, SecAggError, StoreError
from secagg import SecAggPlus
from tests.flower.direct import fedavg, model, play_out, rostered


def masks() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]


def site(folder: Path, text: str, **named: Any) -> Any:
    (folder / FILE).write_text(text)
    return load_site(folder, 1, **named)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("max_epsilon = nan", "max_epsilon"),
        ("max_epsilon = inf", "max_epsilon"),
        ('max_epsilon = "1"', "max_epsilon"),
        ("min_cohort = nan", "min_cohort"),
        ("min_cohort = 3.5", "min_cohort"),
        ("min_threshold_share = nan", "min_threshold_share"),
        ("min_threshold_share = 50", "min_threshold_share"),
        ('allow_layers = "client-dp, paillier, not secagg+"', "allow_layers"),
        ("allow_layers = [1]", "allow_layers"),
        ('allow_resend = "no"', "allow_resend"),
        ("signed_roster = 1", "signed_roster"),
        ("threat = 3", "threat"),
        ("least = 3", "least"),
    ],
)
def test_a_policy_that_means_nothing_is_refused_by_file_and_key(tmp_path: Path, line: str, key: str) -> None:
    with pytest.raises(Misuse, match=key) as caught:
        site(tmp_path, f"[policy]\n{line}\n")
    assert str(tmp_path / FILE) in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == [FILE]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("policy = 5", "policy"),
        ("policy = [1]", "policy"),
        ('delta = "x"', "delta"),
        ("delta = 0", "delta"),
        ("delta = 2.0", "delta"),
        ("delta = nan", "delta"),
        ("delta = true", "delta"),
        ("anchor = 1", "anchor"),
        ("name = 5", "name"),
        ('name = ""', "name"),
        ("state = []", "state"),
        ("dataset = 5", "dataset"),
        ("ledgers = false", "ledgers"),
        ('ledgers = "site.toml"', "ledgers to be a folder"),
        ('state = "a\\u0000b"', "state"),
        ("roster = 5", "roster"),
        ("authority = 5", "authority"),
        ("identity = 5", "identity"),
        ("sate = 'x'", "sate"),
        ("name = ", "Invalid value"),
    ],
)
def test_a_key_of_another_type_is_refused_by_file_and_name(tmp_path: Path, line: str, key: str) -> None:
    with pytest.raises(Misuse, match=key) as caught:
        site(tmp_path, f"{line}\n")
    assert str(tmp_path / FILE) in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"name = '\xff'\n")
    with pytest.raises(Misuse, match="utf-8"):
        load_site(tmp_path, 1)


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / FILE).write_text('name = "site-1"\n')
    (tmp_path / FILE).chmod(mode)
    with pytest.raises(StoreError, match=f"mode {mode:o}.*chmod go-w site.toml"):
        load_site(tmp_path, 1)
    (tmp_path / FILE).chmod(0o644)
    assert load_site(tmp_path, 1, "").name == "site-1"  # as a Federation loads it


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({CONFIG_KEY: 5}, "secagg-site"),
        ({CONFIG_KEY: True}, "secagg-site"),
        ({CONFIG_KEY: "relative/folder"}, "absolute"),
        ({CONFIG_KEY: "/a\0b"}, "printable"),
        ({"secagg-dataset": 7}, "secagg-dataset"),
        ({"secagg-dataset": False}, "secagg-dataset"),
        ({"secagg-ledgers": " "}, "secagg-ledgers"),
    ],
)
def test_a_node_config_of_another_type_is_refused_before_anything_is_made(
    tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    with pytest.raises(Misuse, match=named):
        load_site(tmp_path / "site", 1, node_config=config)
    assert list(tmp_path.iterdir()) == []


def test_what_the_nodes_say_reaches_the_server_as_a_refusal_and_the_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    grid, arguments = rostered(tmp_path, 5, privacy_mod(masks()))
    own = tmp_path / "keys" / "site-1" / FILE
    own.write_text(own.read_text() + '\n[policy]\nallow_layers = "not secagg+"\n')
    grid.apps[2] = (grid.apps[2][0], {CONFIG_KEY: 5})
    strategy = PrivateStrategy(fedavg(2), masks(), **arguments, stage_timeout=0.1, poll=0.01)
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    (report,) = strategy.history
    assert report.survivors == ("site-3", "site-4", "site-5")
    assert "allow_layers" in report.refusals["site-1"]
    assert CONFIG_KEY in report.refusals["site-2"]
    assert list((tmp_path / "here").iterdir()) == []


def test_a_refusals_note_goes_to_the_nodes_own_log_alone() -> None:
    """It may hold a cell of the data, which says at the node what to mend."""
    error, said = Misuse("ward.csv: an empty cell"), list[str]()
    error.add_note("In the row of Smith.")
    assert told(error, lambda level, text, *words: said.append(text % words)) == f"Misuse: {error}"
    assert said == ["In the row of Smith."]


def opened(store: Any) -> str:
    store.put("x", b"1")
    return str(store.name)


@pytest.mark.parametrize("names", [("", ""), ("A", "B")], ids=["ids", "names"])
def test_two_nodes_that_begin_one_folder_leave_it_to_the_first(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    """The second is refused or is the same site; the folder opens as before when they start again."""
    first = load_site(tmp_path, 1, names[0] or None)
    if names[1]:
        with pytest.raises(Misuse, match=r"was first used by 'A', and is called 'B' now: another site needs"):
            load_site(tmp_path, 2, names[1])
    else:
        assert load_site(tmp_path, 2).store.name == "node-1"
    assert opened(first.store) == opened(load_site(tmp_path, 1, names[0] or None).store)


@pytest.mark.parametrize("ids", [(1, 1), (1, 2)], ids=["one", "two"])
def test_who_begins_one_folder_at_once_all_open_it(tmp_path: Path, ids: tuple[int, int]) -> None:
    """While the name was written without a lock, one of two lost nearly every time."""
    for turn in range(20):
        together, folder = threading.Barrier(2), tmp_path / str(turn)

        def begin(node_id: int, together: threading.Barrier = together, folder: Path = folder) -> str:
            together.wait()
            return opened(load_site(folder, node_id).store)

        with ThreadPoolExecutor(2) as pool:
            assert len({*pool.map(begin, ids)}) == 1


@pytest.mark.parametrize("name", ["ward 7 ", "\u00c4rzte", "a/b"])
def test_a_name_is_kept_as_it_is(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        assert opened(load_site(tmp_path, 1, name).store) == name


def test_the_name_lies_beside_the_state_wherever_that_is(tmp_path: Path) -> None:
    own, elsewhere = tmp_path / "site", tmp_path / "var" / "state"
    own.mkdir()
    made = site(own, f'state = "{elsewhere}"\n')
    assert sorted(p.name for p in own.iterdir()) == [FILE]
    assert opened(made.store) == (tmp_path / "var" / "state.name").read_text() == "node-1"
    assert opened(site(own, "").store) == "node-1"
    assert opened(load_site(own, 7).store) == "node-1"


@pytest.mark.parametrize(
    ("wrong", "mended"),
    [
        ('name = "site-1"', ""),
        ("roster.json", "rooster.json"),
        ("site-1.key", "site-2.key"),
        ('"site-1"', '"site1"'),
        ("authority =", "dataset ="),
    ],
    ids=["no name", "no roster", "no identity", "not on it", "no authority"],
)
def test_a_refused_file_begins_no_store_and_is_opened_once_mended(
    tmp_path: Path, wrong: str, mended: str
) -> None:
    rostered(tmp_path, 2, None)
    own = tmp_path / "keys" / "site-1"
    text, before = (own / FILE).read_text(), sorted(own.iterdir())
    assert wrong in text
    with pytest.raises(SecAggError):
        site(own, text.replace(wrong, mended))
    assert sorted(own.iterdir()) == before
    assert opened(site(own, text).store) == "site-1"


def test_an_identity_that_the_roster_does_not_bind_begins_no_store(tmp_path: Path) -> None:
    rostered(tmp_path, 2, None)
    own = tmp_path / "keys" / "site-1"
    text, before = (own / FILE).read_text(), sorted(own.iterdir())
    with pytest.raises(Misuse, match="not the key that the roster binds to 'site-2'"):
        site(own, text.replace('"site-1"', '"site-2"'))
    assert sorted(own.iterdir()) == before


def test_a_site_under_another_name_keeps_its_account_by_another_state(tmp_path: Path) -> None:
    """A node behind a mod alone is called by its id, and in a Federation what that calls it."""
    event = Gaussian(unit=Unit.CLIENT, relation=Relation.ADD_REMOVE, noise_multiplier=1.0)
    facts = (to_fact(event, "server", ""),)
    load_site(tmp_path, 7).ledger.charge(facts, None, run="r", round=1, again=False)
    with pytest.raises(
        Misuse, match=r"under another name sets `state` to another file in site\.toml, so that"
    ):
        load_site(tmp_path, 7, "site-1")
    now = site(tmp_path, 'state = "state2"\n', default_name="site-1")
    now.ledger.charge(facts, None, run="r", round=2, again=False)
    assert opened(now.store) == now.name == "site-1"
    assert len(Ledger(tmp_path / LEDGER).entries()) == 2


def test_a_folder_from_before_names_were_kept_opens_under_the_name_that_it_had(tmp_path: Path) -> None:
    opened(load_site(tmp_path, 7, "site-1").store)
    (tmp_path / "state.name").unlink()
    other = load_site(tmp_path, 8)
    with pytest.raises(RollbackDetected, match=r"or the name that it had .* is `name` in site\.toml"):
        opened(other.store)
    assert opened(site(tmp_path, 'name = "site-1"\n').store) == "site-1"
