"""kill -9 at random moments, in real processes: what was released is always in the ledger, and the budget
holds."""

import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

from dp import Ledger
from dp.accountants import accountant
from dp.events import Gaussian, Relation, Unit
from protocols.errors import BudgetExceeded, StoreError

ROUND = Gaussian(noise_multiplier=15.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
TERMS = {"epsilon": 2.0, "delta": 1e-5, "accountant": "rdp"}
# a fresh interpreter takes a second to import; the ledger does not care
FORK = multiprocessing.get_context("fork")


def spend(ledger_path: Path, released_path: Path, refused_path: Path) -> None:
    """Charge, release, charge, release, until killed or refused."""
    released = os.open(released_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        ledger = Ledger(ledger_path, **TERMS)
        while True:
            entry = ledger.charge(ROUND, run=str(os.getpid()))
            os.write(released, f"{entry.id}\n".encode())  # the release: the world sees it at once
    except BudgetExceeded:
        refused_path.with_suffix(f".{os.getpid()}").touch()


def start(folder: Path):
    accountant("rdp").add(ROUND).epsilon(1e-5)  # what is imported late is imported before the fork
    worker = FORK.Process(target=spend, args=(folder / "a.ledger", folder / "released", folder / "refused"))
    worker.start()
    return worker


def released_ids(folder: Path) -> list[int]:
    path = folder / "released"
    lines = path.read_text().split("\n") if path.exists() else []
    return [int(line) for line in lines[:-1]]


def test_what_was_released_is_charged_whenever_the_process_dies(tmp_path: Path) -> None:
    moments = random.Random(11)
    path = tmp_path / "a.ledger"
    for _ in range(30):
        worker = start(tmp_path)
        if moments.random() < 0.5:  # however slow the machine is, some workers get as far as releasing
            wanted = len(released_ids(tmp_path)) + moments.randint(1, 3)
            while worker.is_alive() and len(released_ids(tmp_path)) < wanted:
                time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.03))  # from before the file exists to the middle of a commit
        worker.kill()  # SIGKILL
        worker.join()
        if not path.exists() or path.stat().st_size == 0:
            continue
        ledger = Ledger(path, **TERMS)
        ledger.verify()
        charged = [entry.id for entry in ledger.entries()]
        assert charged == list(range(1, len(charged) + 1))
        assert set(released_ids(tmp_path)) <= set(charged)
        assert ledger.epsilon() <= 2.0
    assert released_ids(tmp_path)


def spend_on_a_full_disk(folder: Path) -> None:
    """No file may grow any more: every charge fails, and says so."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        Ledger(folder / "a.ledger").charge(ROUND, run="x" * 500)
    except StoreError:
        os._exit(7)
    os._exit(0)


def test_a_full_disk_is_a_typed_error_and_leaves_the_ledger_whole(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a.ledger", **TERMS)
    ledger.charge(ROUND)
    child = FORK.Process(target=spend_on_a_full_disk, args=(tmp_path,))
    child.start()
    child.join(300)
    assert child.exitcode == 7
    ledger.verify()
    assert len(ledger.entries()) == 1
    assert ledger.charge(ROUND).id == 2


def test_processes_at_once_share_one_budget(tmp_path: Path) -> None:
    workers = [start(tmp_path) for _ in range(3)]
    time.sleep(0.1)
    workers[0].kill()
    for worker in workers:
        worker.join(300)
    assert len(list(tmp_path.glob("refused.*"))) >= 2
    ledger = Ledger(tmp_path / "a.ledger")
    ledger.verify()
    ids = released_ids(tmp_path)
    assert len(ids) == len(set(ids)) > 0
    assert set(ids) <= {entry.id for entry in ledger.entries()}
    assert ledger.epsilon() <= 2.0 < ledger.price_with(ROUND)
