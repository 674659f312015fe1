"""What a soak's files say: right ones pass, and every kind of wrong is named."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from dp import ClientDP, Ledger
from fl.flower.arrays import arrays_of
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from secagg import SecAggPlus
from tests.flower.app.faultapp.client import faults, watched
from tests.flower.direct import fedavg, model, rostered
from tests.flower.soaked import AGAIN, APP_FILE, FAULTS_FILE, LOOKS_FILE, Fault, faults_in, summary


def layers() -> list[Any]:
    return [ClientDP(noise_multiplier=1.0, clip=1.0), SecAggPlus()]


def written(path: Path, rows: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rounds of four nodes, of which two leave in the last."""
    folder, gone = tmp_path_factory.mktemp("soak"), list[int]()
    private = privacy_mod(layers())

    def mod(message: Message, context: Context, app: ClientAppCallable) -> Message:
        return faults(message, context, lambda m, c: private(m, c, lambda n, d: watched(n, d, app)))

    lost = lambda node, message: None if node in gone else message  # noqa: E731  # one line says it
    grid, arguments = rostered(folder, 4, mod, before=lost)
    account = Ledger(folder / "server.ledger", epsilon=1e6, delta=1e-5, accountant="rdp")
    strategy = PrivateStrategy(fedavg(4), layers(), poll=0.01, stage_timeout=0.2, ledger=account, **arguments)
    strategy.start(
        grid, arrays_of(model()), num_rounds=3, evaluate_fn=lambda n, _: gone.extend([1, 2] * (n == 2))
    )
    return folder


@pytest.fixture
def hurt(soak: Path) -> Iterable[Path]:
    """The same, and the log says that both nodes were killed meanwhile. What a test writes is put back."""
    files = [soak / FAULTS_FILE, soak / LOOKS_FILE, soak / "keys" / "site-3" / APP_FILE]
    before = {path: path.read_bytes() for path in files if path.exists()}
    written(files[0], [Fault(2, "kill a node", f"site-{n}")._asdict() for n in (1, 2)])
    yield soak
    for path in files:
        path.write_bytes(before.get(path, b""))


def test_a_round_that_nothing_explains_is_wrong_and_one_that_faults_explain_is_not(hurt: Path) -> None:
    found = summary(hurt)
    assert (found["rounds"], found["closed"], found["wrong"]) == (3, 2, [])
    for rows in (
        [],
        [Fault(2, "kill a node", "site-1")],
        [Fault(2, AGAIN, "server")],
        [Fault(0, "x", "site-1", 0)],
    ):
        written(hurt / FAULTS_FILE, [row._asdict() for row in rows])
        assert [said.partition(",")[0] for said in summary(hurt)["wrong"]] == ["round 3"]


def test_a_fault_meets_every_round_until_it_is_over(tmp_path: Path) -> None:
    begun, over = Fault(3, "kill a node", "site-1"), Fault(3, "kill a node", "site-1", 5)
    written(tmp_path / FAULTS_FILE, [row._asdict() for row in (begun, over, begun)])
    assert faults_in(tmp_path) == [over, begun]
    assert [number for number in range(9) if over.meets(number)] == [4, 5, 6]
    assert [number for number in range(9) if begun.meets(number)] == [4]


def test_a_process_that_grows_is_wrong(hurt: Path) -> None:
    sizes = [[9, 10, 12, 14], [9, 10, 20, 40]]
    looks = [{"at": n, "rounds": n, "processes": {"superlink 1": (kib, n)}} for n, kib in enumerate(sizes[0])]
    written(hurt / LOOKS_FILE, looks)
    assert summary(hurt)["wrong"] == []
    assert (summary(hurt)["seconds_per_round"], summary(hurt)["processor_per_round"]) == (1.0, 1.0)
    for look, kib in zip(looks, sizes[1], strict=True):
        look["processes"] = {"superlink 1": (kib, 0)}
    written(hurt / LOOKS_FILE, looks)
    assert summary(hurt)["wrong"] == ["superlink 1: 10 to 40 KiB"]


def test_an_update_that_left_twice_and_a_session_that_nobody_paid_for_are_wrong(hurt: Path) -> None:
    path = hurt / "keys" / "site-3" / APP_FILE
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["answered"] for row in rows] == [None, True] * (len(rows) // 2)
    again = [{**row, "context": "another" + row["context"]} for row in rows if row["update"]]
    sent = [{**row, "stage": "masked-input", "round": 0} for row in again]
    written(path, [*rows, *sent])
    assert [said.partition(":")[2] for said in summary(hurt)["wrong"]] == [f" {len(sent)} updates left twice"]
    written(path, [*rows, *({**row, "round": 9} for row in rows[:2])])
    assert (
        "site-3: round 9 was begun 1 times, asked for 1 times and charged 0 times" in summary(hurt)["wrong"]
    )
