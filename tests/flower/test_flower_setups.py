"""Keys for many rounds over a network: a site that lost them, and two runs of one federation on the same sites."""

from pathlib import Path
from typing import Any

from flwr.app import Message

from dp import ClientDP, Ledger
from fl import Federation
from fl.flower.arrays import arrays_of
from fl.flower.messages import unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from secagg import SecAggPlus
from tests.flower.direct import fedavg, model, rostered
from tests.flower.test_flower_apps import federation, grid_of, serve


def test_a_site_that_lost_its_keys_pays_for_nothing_and_is_back_in_the_next_round(tmp_path: Path) -> None:
    trained: list[str] = []

    def make() -> Federation:
        made = federation([ClientDP(noise_multiplier=1.0, delta=1e-5, clip=1.0), SecAggPlus()])
        loader = made.setup.loader_for
        made.setup.loader_for = lambda name: (trained.append(name), loader(name))[1]
        return made

    def before(node: int, message: Message) -> Message | None:
        request = unpack_request(message.content, None)[0]
        if node == 2 and request.header is not None and request.header.terms.number == 2:
            for file in (tmp_path / "n2").glob("state*"):
                file.unlink()
        return message

    for node in range(1, 5):
        (tmp_path / f"n{node}").mkdir()
        (tmp_path / f"kept{node}").mkdir()
        (tmp_path / f"n{node}" / "site.toml").write_text(f'ledgers = "{tmp_path / f"kept{node}"}"\n')
    history = serve(grid_of(tmp_path, make, before=before), make(), 3).history
    assert [len(played.survivors) for played in history] == [4, 3, 4]
    assert "SetupMissing: setup: this client took no part" in history[1].refusals["site-2"]
    assert [len(played.trips) for played in history] == [3, 2, 3]
    (ledger,) = (tmp_path / "kept2").glob("*.ledger")
    assert len(Ledger(ledger).entries()) == trained.count("site-2") == 2


def test_two_runs_of_one_roster_keep_their_keys_apart(tmp_path: Path) -> None:
    grid, arguments = rostered(tmp_path, 4, privacy_mod([SecAggPlus()]))

    def made(name: str) -> PrivateStrategy:
        given: dict[str, Any] = {**arguments, "folder": tmp_path / name}
        return PrivateStrategy(fedavg(4), [SecAggPlus()], stage_timeout=2.0, poll=0.01, **given)

    first, other = made("a"), made("b")
    ask = first.configure_train

    def between(number: int, *given: Any) -> Any:
        if number == 2:
            other.start(grid, arrays_of({name: array + 1 for name, array in model().items()}), num_rounds=1)
        return ask(number, *given)

    first.configure_train = between  # type: ignore[method-assign]
    first.start(grid, arrays_of(model()), num_rounds=3)
    assert [r.abandoned for r in (*first.history, *other.history)] == [None] * 4
    assert [len(r.trips) for r in first.history] == [3, 2, 2]
