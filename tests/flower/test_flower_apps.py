"""A Federation as Flower apps: the in-memory run's model, names and rosters, going on after a stop, layers that own
the training.
"""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, Ledger, SampleDP
from examples.flower.keys import make_deployment, write_site
from fl import Federation
from fl.callbacks import Callback, Run
from fl.flower.compat import failure_of
from fl.flower.grid_party import GridParty
from fl.flower.messages import unpack_request
from fl.network.directory import Directory, from_names, from_roster
from fl.network.site import FILE, Site
from fl.round import RoundResult
from fl.run_result import Result
from he import KeyHolder, PaillierSum
from protocols.errors import Misuse
from protocols.identity import Identity, Roster, SignedRoster
from protocols.kernel import Party
from protocols.layers import LocalTask
from protocols.plain import PlainSum
from protocols.policy import Policy
from protocols.record import FILE_NAME, verify_record
from protocols.store import MemoryStore
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, pem

SITES = ("site-1", "site-2", "site-3", "site-4")


def loader_for(name: str, config: dict[str, Any]) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(SITES.index(name))
    x = torch.randn(24, 5, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=8, shuffle=True)


def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> dict[str, float]:
    loss = torch.zeros(())
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
    return {"loss": float(loss.detach())}


def federation(privacy: list[Any] | None = None, seed: int = 3, **named: Any) -> Federation:
    layers = [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)] if privacy is None else privacy
    return Federation(
        model=lambda: torch.nn.Linear(5, 2),
        clients=loader_for,
        names=SITES,
        train=train,
        privacy=layers,
        seed=seed,
        **named,
    )


def grid_of(folder: Path, make: Any = federation, **hooks: Any) -> DirectGrid:
    apps = {n: (make().client_app(site=folder / f"n{n}"), {"partition-id": n - 1}) for n in range(1, 5)}
    return DirectGrid(apps, **hooks)


def serve(
    grid: DirectGrid, own: Federation, rounds: int, timeout: float | None = 5.0, **options: Any
) -> Result:
    results: list[Result] = []
    server = own.server_app(rounds, timeout=timeout, poll=0.01, on_result=results.append, **options)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}, series_id=1)
    server(grid, context)
    return results[0]


def same(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_model_is_that_of_the_run_in_memory_bit_for_bit(tmp_path: Path) -> None:
    result = serve(grid_of(tmp_path), federation(), 2)
    expected = federation().fit(2)
    assert [r.survivors for r in result.history] == [r.survivors for r in expected.history]
    assert same(result.model, expected.model)
    assert result.history[-1].train_metrics == expected.history[-1].train_metrics


def test_a_stopped_run_goes_on_to_the_same_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    grid = grid_of(tmp_path)
    serve(grid, federation(output=out), 1)
    result = serve(grid, federation(output=out), 3)
    assert len(result.history) == 3
    assert same(result.model, federation().fit(3).model)


@pytest.mark.parametrize(("cohort", "refused"), [(9, True), (4, False)])
def test_a_federations_policy_holds_on_its_nodes_and_their_own_files_come_first(
    tmp_path: Path, cohort: int, refused: bool
) -> None:
    own = {"policy": Policy(min_cohort=cohort, min_threshold_share=0.0, allow_resend=True)}
    grid = grid_of(tmp_path, lambda: federation(**own))
    result = serve(grid, federation(**own), 1)
    assert (result.history[0].abandoned is not None) == refused
    for node in range(1, 5):
        (tmp_path / f"n{node}" / "site.toml").write_text(f"[policy]\nmin_cohort = {4 if refused else 5}\n")
    again = serve(grid_of(tmp_path, lambda: federation(**own)), federation(**own, output=tmp_path / "run"), 1)
    assert (again.history[0].abandoned is not None) != refused


class Killed(BaseException):
    """Stands for SIGKILL of the ServerApp."""


def test_a_lost_rounds_session_is_in_the_statement(tmp_path: Path) -> None:
    """Three clients are there in the round that is lost, whose total the server may have opened, and four later."""

    def before(node: int, message: Message) -> Message:
        if not (tmp_path / "killed").exists() and unpack_request(message.content, None)[0].stage == "unmask":
            (tmp_path / "killed").touch()
            raise Killed
        return message

    def own() -> Federation:
        return federation(output=tmp_path / "run", windows=("site-4=2-9",))

    grid = grid_of(tmp_path, own, before=before)
    with pytest.raises(Killed):
        serve(grid, own(), 2)
    result = serve(grid, own(), 2)
    assert [len(entry.survivors) for entry in result.history] == [0, 4]
    assert result.statement.protection.parameters["clients"] == 3


@pytest.mark.parametrize("with_ledger", [False, True])
def test_a_round_whose_inputs_had_left_is_lost_and_paid_for_once(tmp_path: Path, with_ledger: bool) -> None:
    armed: list[bool] = []

    def before(node: int, message: Message) -> Message:
        if armed and unpack_request(message.content, None)[0].stage == "unmask":
            raise Killed
        return message

    def private() -> Federation:
        layers = [ClientDP(epsilon=8, delta=1e-5, clip=1.0), *federation().setup.stack.privacy]
        path = tmp_path / "own.ledger"
        ledger = Ledger(path, epsilon=8.0, delta=1e-5, accountant="rdp") if with_ledger else None
        return federation(layers, output=tmp_path / "run", ledger=ledger)

    grid = grid_of(tmp_path, private, before=before)
    armed.append(True)
    with pytest.raises(Killed):
        serve(grid, private(), 3)
    armed.clear()
    grid.replies.clear()
    result = serve(grid, private(), 3)
    assert [entry.abandoned is None for entry in result.history] == [False, True, True]
    assert len(result.statement.events) == 3
    assert result.epsilon is not None
    assert result.epsilon <= 8.0


def rostered(folder: Path, policy: dict[str, Any], **named: Any) -> tuple[DirectGrid, dict[str, Any]]:
    """Return a grid of four nodes on a signed roster, and the server's arguments. named: of `client_app`."""
    files = make_deployment(folder / "keys", 4)
    apps, keys = {}, {}
    for node_id, node in enumerate(files.nodes, start=1):
        write_site(files, node, policy)
        # the roster names it, not this
        config = {"secagg-site": str(node.identity.parent), "partition-id": 99}
        apps[node_id] = (federation().client_app(**named), config)
        keys[node_id] = pem(node.auth_public)
    given = {"roster": SignedRoster.load(files.roster), "authority": files.authority_key}
    return DirectGrid(apps, keys=keys), {**given, "identity": Identity.load(files.server_identity)}


def test_a_roster_names_the_clients_and_its_server_signs_the_record(tmp_path: Path) -> None:
    grid, given = rostered(tmp_path, {"min_cohort": 4})
    result = serve(grid, federation(output=tmp_path / "run"), 2, **given)
    assert result.history[-1].survivors == SITES
    kept = (tmp_path / "keys" / "site-3" / "kept-head.txt").read_text().strip()
    public = given["identity"].public
    assert verify_record(tmp_path / "run" / FILE_NAME, public, kept).level == "verified"
    with pytest.raises(Misuse, match="output folder"):
        serve(grid, federation(), 1, **given)
    del given["identity"]
    with pytest.raises(Misuse, match="all three or none"):
        serve(grid, federation(output=tmp_path / "x"), 1, **given)


def test_one_function_of_the_site_signs_session_keys_on_both_sides(tmp_path: Path) -> None:
    """The roster that names the nodes binds their session keys too: no server in the middle."""

    def layers(site: Site) -> list[Any]:
        assert site.name in (*SITES, "server")
        return [SecAggPlus(setup="reuse", dropout=0.25, threat="malicious", credentials=site.credentials())]

    grid, given = rostered(tmp_path, {"threat": "malicious"}, privacy=layers)
    result = serve(grid, federation(output=tmp_path / "run"), 2, privacy=layers, **given)
    assert [entry.survivors for entry in result.history] == [SITES, SITES]
    assert result.statement.protection.threat == "malicious"
    assert not any("bound to names by the server" in limit for limit in result.statement.protection.limits)
    assert same(result.model, federation().fit(2).model)
    weaker = serve(grid, federation(output=tmp_path / "weaker"), 1, **given)
    assert weaker.history[0].abandoned is not None


def test_layers_from_the_site_need_no_roster(tmp_path: Path) -> None:
    def layers(site: Site) -> list[Any]:
        assert site.signed is None
        return [PlainSum()]

    apps = {
        n: (federation().client_app(tmp_path / f"n{n}", privacy=layers), {"partition-id": n - 1})
        for n in range(1, 5)
    }
    result = serve(DirectGrid(apps), federation(), 1, privacy=layers)
    assert same(result.model, federation([]).fit(1).model)
    assert "plain" in str(result.statement.protection.mechanism).lower()


def test_a_client_that_was_sent_another_federations_model_refuses(tmp_path: Path) -> None:
    other = Federation(model=lambda: torch.nn.Linear(6, 2), clients=loader_for, names=SITES, train=train)
    apps = {n: (other.client_app(site=tmp_path / f"n{n}"), {"partition-id": n - 1}) for n in range(1, 5)}
    result = serve(DirectGrid(apps), federation(), 1)
    assert result.history[0].abandoned is not None


def test_layers_that_own_the_training_run_where_the_data_lives(tmp_path: Path) -> None:
    def private() -> Federation:
        layers = [SampleDP(epsilon=8, delta=1e-5), *federation().setup.stack.privacy]
        return federation(layers)

    result = serve(grid_of(tmp_path, private), private(), 1)
    assert result.history[0].abandoned is None
    assert result.statement.events
    assert result.epsilon is not None


def test_a_name_that_two_nodes_claim_is_nobodys_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can tell which of them it is: neither takes part."""
    grid = grid_of(tmp_path)
    grid.apps[5] = (federation().client_app(site=tmp_path / "n5"), {"partition-id": 0})
    with caplog.at_level(logging.WARNING, "flwr"):
        result = serve(grid, federation(), 2)
    assert [report.survivors for report in result.history] == [SITES[1:], SITES[1:]]
    said = [r.getMessage() for r in caplog.records if "claim" in r.getMessage()]
    assert len(said) == 1
    assert "'site-1'" in said[0]
    assert "nodes 1, 5" in said[0]


def test_a_node_that_calls_itself_no_clients_name_is_in_the_servers_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "n3").mkdir()
    (tmp_path / "n3" / FILE).write_text('name = "node-3"\n')
    with caplog.at_level(logging.WARNING, "flwr"):
        result = serve(grid_of(tmp_path), federation(), 2)
    assert [report.survivors for report in result.history] == [("site-1", "site-2", "site-4")] * 2
    said = [r.getMessage() for r in caplog.records if "calls itself" in r.getMessage()]
    assert said == [f"node 3 takes no part: it calls itself 'node-3', the clients are {list(SITES)}"]


def test_a_helpers_name_that_two_nodes_claim_is_nobodys_either() -> None:
    found = from_names({1: "a", 2: "b", 3: "h", 4: "h", 5: "k"}, ["a", "b"], [Party("key-holder", 0)])
    assert found.clients == {"a": 1, "b": 2}
    assert found.helpers == {"key-holder": [("k", 5)]}
    assert found.left_out == ("'h' takes no part: nodes 3, 4 claim that name, give each one its own",)


def test_no_name_of_a_node_begins_a_line_of_the_log() -> None:
    name = "x\n2026 WARNING all is well"
    roster = Roster("f", 1, ())
    said = [
        *from_names({name: name, "y": "b", "z\n": "b"}, ["a"], []).left_out,
        *from_roster(roster, {}, [name]).left_out,
        *from_names({1: "x" * 10**6}, ["a"], []).left_out,
    ]
    assert len(said) == 4
    assert all(text.isprintable() and len(text) < 500 for text in said)


def test_a_helper_of_the_runs_sums_is_no_stranger_to_its_evaluations(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Three(GridParty):
        def look(self) -> Directory:
            return from_names({1: "a", 2: "b", 3: "h"}, ["a", "b"], self.helpers)

    holder = PaillierSum(KeyHolder(), key_bits=2048)
    server = Three(DirectGrid({}), holder, MemoryStore())
    with caplog.at_level(logging.WARNING, "flwr"):
        assert server.connected().helpers == {"key-holder": [("h", 3)]}
        assert server.beside(SecAggPlus()).connected().clients == {"a": 1, "b": 2}
    assert caplog.records == []


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Misuse: no\n2026 WARNING \x1b[2Kall is well", "error 7: 2026 WARNING  [2Kall is well"),
        (" \n", "error 7: no reason given"),
        ("", "error 7: no reason given"),
    ],
)
def test_what_a_node_says_in_place_of_an_answer_is_one_line(reason: str, said: str) -> None:
    asked = Message(RecordDict(), dst_node_id=1, message_type="train")
    assert failure_of(Message(Error(7, reason), reply_to=asked)) == said


def configured(grid: DirectGrid, own: Federation, **config: Any) -> None:
    server = own.server_app(1, timeout=5.0, poll=0.01)
    run_config = {name.replace("_", "-"): value for name, value in config.items()}
    server(
        grid,
        Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=run_config, series_id=1),
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_server_rounds": 0}, "num-server-rounds: expected a whole number >= 1, got 0"),
        ({"num_server_rounds": "3"}, "num-server-rounds: expected a whole number >= 1, got '3'"),
        ({"secagg_timeout": "soon"}, "secagg-timeout: expected a number > 0, got 'soon'"),
        ({"secagg_timeout": 0}, "secagg-timeout: expected a number > 0, got 0"),
    ],
    ids=["none", "text", "soon", "zero"],
)
def test_a_run_configuration_is_taken_at_its_word(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    grid = grid_of(tmp_path)
    with pytest.raises(Misuse, match=said):
        configured(grid, federation(), **config)
    assert grid.trips == 0


@pytest.mark.parametrize("place", ["0", -1, 1.5, True])
def test_a_node_says_what_its_partition_id_must_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: Any
) -> None:
    grid = grid_of(tmp_path)
    grid.apps[2][1]["partition-id"] = place
    caplog.set_level("WARNING", "flwr")
    result = serve(grid, federation(), 1, timeout=0.2)
    assert result.history[0].survivors == ("site-1", "site-3", "site-4")
    said = f"partition-id: expected a whole number >= 0, got {place!r}"
    assert any("node 2" in r.getMessage() and said in r.getMessage() for r in caplog.records)


def test_callbacks_of_clients_run_on_their_nodes_and_those_of_the_server_there(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    class Mark(Callback):
        def on_client_begin(self, task: LocalTask, number: int) -> None:
            seen.append((task.client, number))

        def on_round_end(self, run: Run, result: RoundResult) -> bool:
            seen.append(("server", result.number))
            return result.number < 2

    def made() -> Federation:
        return federation(callbacks=[Mark()])

    assert len(serve(grid_of(tmp_path, made), made(), 3).history) == 2
    assert [name for name, number in seen if number == 2] == [*SITES, "server"]


def test_a_client_that_fails_or_hangs_is_left_out_with_its_reason_and_without_its_words(
    tmp_path: Path,
) -> None:
    reached = set[int]()

    class Broken(Callback):
        def on_client_begin(self, task: LocalTask, number: int) -> None:
            reached.add(number)
            if task.client == "site-2" and number == 1:
                raise KeyError("patient 4711")

    def made() -> Federation:
        layers = [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]
        return federation(layers, callbacks=[Broken()], client_timeout=0.5)

    def silent(node: int, message: Message) -> Message | None:
        return None if node == 3 and 2 in reached else message  # site-1 trains before it

    (first, second) = serve(grid_of(tmp_path, made, before=silent), made(), 2, timeout=None).history
    assert first.survivors == ("site-1", "site-3", "site-4")
    assert (
        "client 'site-2', round 1: its loop failed: KeyError; its own log says why"
        in first.refusals["site-2"]
    )
    assert "patient 4711" not in repr(first)
    assert "site-3" not in second.survivors
    assert "no answer to 'masked-input' within" in second.refusals["site-3"]


def test_a_server_that_is_told_to_stop_ends_there_and_goes_on_when_it_is_submitted_again(
    tmp_path: Path,
) -> None:
    whole, grid = federation(), grid_of(tmp_path / "nodes")
    whole.fit(3)
    stopped = serve(grid, federation(output=tmp_path / "run"), 3, on_round=lambda result: result.number < 2)
    assert [entry.number for entry in stopped.history] == [1, 2]
    done = serve(grid, federation(output=tmp_path / "run"), 3)
    assert [entry.number for entry in done.history] == [1, 2, 3]
    assert same(done.model, whole.model)
