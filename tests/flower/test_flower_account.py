"""What a node's own data lost: one account per data set, over federations; updates that are sent again by choice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from dp import ClientDP, Ledger
from fl.flower.arrays import arrays_of, tree_of
from fl.flower.messages import unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.messages import START
from fl.round.party_ledger import LEDGER, SENT_AGAIN
from protocols.identity import Identity, Roster, SignedRoster
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, fedavg, model, play_out, rostered

Arguments = dict[str, Any]


def masks() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]


def private() -> list[Any]:
    return [ClientDP(epsilon=8, delta=1e-5, clip=1.0), *masks()]


def noised() -> list[Any]:
    """Noise that was calibrated for no number of rounds."""
    return [ClientDP(noise_multiplier=2.0, delta=1e-5, clip=1.0), *masks()]


def repeating(mod: Any) -> ClientApp:
    """An app whose training depends on the model alone."""
    app = ClientApp(mods=[mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        tree = tree_of(message.content.array_records["arrays"])
        moved = {name: a + (0.1 * context.node_id if a.dtype.kind == "f" else 1) for name, a in tree.items()}
        moved = {name: a.astype(tree[name].dtype) for name, a in moved.items()}
        metrics = MetricRecord({"num-examples": 10})
        return Message(RecordDict({"arrays": arrays_of(moved), "metrics": metrics}), reply_to=message)

    return app


def federation(
    folder: Path, layers: Any, policy: Mapping[str, Any] | None = None, app: Any = None, **hooks: Any
) -> tuple[DirectGrid, Arguments]:
    grid, arguments = rostered(folder, 4, privacy_mod(layers()), policy=policy, **hooks)
    if app is not None:
        grid.apps = {node: (app, config) for node, (_, config) in grid.apps.items()}
    return grid, {**arguments, "stage_timeout": 0.1, "poll": 0.01, "delta": 1e-5}


def play(grid: DirectGrid, arguments: Arguments, layers: Any, rounds: int) -> PrivateStrategy:
    strategy = PrivateStrategy(fedavg(4), layers(), **arguments)
    play_out(strategy, grid, arrays_of(model()), num_rounds=rounds)
    return strategy


def write(folder: Path, name: str, lines: str) -> None:
    """Add lines to a node's site.toml, before its tables."""
    path = folder / "keys" / name / "site.toml"
    path.write_text(lines + path.read_text())


class Feigned:
    """A server that says nobody unmasked in the first round, and asks again."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def __call__(self, node: int, message: Message) -> Message | None:
        request, _ = unpack_request(message.content, None)
        if request.kind == START:
            self.seen.add(request.context)
        return None if request.stage == "unmask" and len(self.seen) == 1 else message


@pytest.mark.parametrize("layers", [masks, private], ids=["sums", "dp"])
def test_an_update_that_is_sent_again_is_declared_charged_and_in_the_statement(
    tmp_path: Path, layers: Any
) -> None:
    policy, app = {"allow_resend": True}, repeating(privacy_mod(layers()))
    grid, arguments = federation(tmp_path, layers, policy, app, before=Feigned())
    strategy = play(grid, arguments, layers, 2)
    first, second = strategy.history
    assert (first.abandoned is None, second.abandoned) == (False, None)
    (note,) = [note for note in strategy.statement().notes if note.startswith("sent again")]
    assert all(f"site-{n} (session 2)" in note for n in (1, 2, 3, 4))
    if layers is private:
        own = Ledger(tmp_path / "keys" / "site-1" / LEDGER)
        assert [entry.note for entry in own.entries()] == ["", SENT_AGAIN]
    again = PrivateStrategy(fedavg(4), layers(), **arguments)
    play_out(again, grid, arrays_of(model()), num_rounds=2)
    assert [note for note in again.statement().notes if note.startswith("sent again")] == [note]


def test_without_that_policy_it_stays_and_costs_its_owner_nothing(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path, private, None, repeating(privacy_mod(private())), before=Feigned())
    strategy = play(grid, arguments, private, 2)
    assert [report.abandoned is None for report in strategy.history] == [False, False]
    assert all("SpentUpdate" in why for why in strategy.history[1].refusals.values())
    assert [len(strategy.history[1].trips), strategy.history[1].trips[0].answered] == [1, 0]
    assert not any(note.startswith("sent again") for note in strategy.statement().notes)
    assert len(Ledger(tmp_path / "keys" / "site-1" / LEDGER).entries()) == 1
    assert len(strategy.account.events) == 2  # the server's own account: charged before it asked


@pytest.mark.parametrize("said_by", ["site.toml", "node-config"])
def test_two_federations_over_the_same_data_share_one_account(tmp_path: Path, said_by: str) -> None:
    ledgers = tmp_path / "ledgers"
    for name in ("a", "b"):
        grid, arguments = federation(tmp_path / name, private, {"max_epsilon": 9.0})
        for node in range(1, 5):
            if said_by == "site.toml":
                write(tmp_path / name, f"site-{node}", f'dataset = "ward-{node}"\nledgers = "{ledgers}"\n')
            else:
                config = grid.apps[node][1]
                config |= {"secagg-dataset": f"ward-{node}", "secagg-ledgers": str(ledgers)}
        strategy = play(grid, arguments, private, 2)
        refused = [report for report in strategy.history if report.abandoned is not None]
        if name == "a":
            assert not refused
        else:
            assert refused
            assert all("max_epsilon" in why for report in refused for why in report.refusals.values())
    assert len(list(ledgers.glob("*.ledger"))) == 4
    one = Ledger.for_dataset(ledgers, "ward-3", epsilon=float("inf"), delta=1e-5, accountant="rdp")
    assert one.epsilon() <= 9.0
    assert not (tmp_path / "a" / "keys" / "site-3" / LEDGER).exists()


def test_a_node_without_a_limit_keeps_its_account_all_the_same(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path, private)
    play(grid, arguments, private, 2)
    own = Ledger(tmp_path / "keys" / "site-2" / LEDGER)
    assert [entry.round for entry in own.entries()] == [1, 2]
    assert {entry.run for entry in own.entries()} == {"demo"}


@pytest.mark.parametrize("how", ["an old copy", "none"])
def test_an_account_that_got_shorter_is_refused(tmp_path: Path, how: str) -> None:
    grid, arguments = federation(tmp_path, noised)
    play(grid, arguments, noised, 1)
    own = tmp_path / "keys" / "site-2" / LEDGER
    copy = own.read_bytes()
    play(grid, arguments, noised, 2)
    own.write_bytes(copy) if how == "an old copy" else own.unlink()
    (report,) = play(grid, arguments, noised, 3).history
    assert report.survivors == ("site-1", "site-3", "site-4")
    assert "RollbackDetected" in report.refusals["site-2"]


def test_two_federations_in_one_site_folder_take_turns_within_a_round(tmp_path: Path) -> None:
    """The second federation's whole round runs between two messages of the first one's."""
    grid, arguments = federation(tmp_path, masks)
    members = arguments["roster"].roster.members
    authority = Identity.load(tmp_path / "keys" / "authority" / "authority.key")
    other = SignedRoster.sign(Roster.of("another", 1, members), authority)
    roster = tmp_path / "keys" / "roster.json"
    inner: list[PrivateStrategy] = []

    def between(node: int, message: Message) -> Message:
        if not inner and unpack_request(message.content, None)[0].stage == "unmask":
            other.save(roster)
            inner.append(PrivateStrategy(fedavg(4), masks(), **second))
            inner[0].start(grid, arrays_of(larger), num_rounds=1)
            arguments["roster"].save(roster)
        return message

    larger = {name: array * 2 for name, array in model().items()}
    second = {**arguments, "folder": tmp_path / "second", "roster": other}
    grid.before = between
    strategy = play(grid, arguments, masks, 1)
    assert [report.abandoned for report in (*strategy.history, *inner[0].history)] == [None, None]


def test_the_layers_may_be_differential_privacy_alone(tmp_path: Path) -> None:
    def alone() -> list[Any]:
        return [ClientDP(epsilon=8, delta=1e-5, clip=1.0)]

    grid, arguments = federation(tmp_path, alone)
    strategy = play(grid, arguments, alone, 1)
    assert strategy.history[0].survivors == ("site-1", "site-2", "site-3", "site-4")
    statement = strategy.statement()
    assert statement.protection.threat == "none"
    assert statement.epsilon is not None
