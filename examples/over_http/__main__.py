"""Trains digits at four sites over HTTP, each a process of its own.

python -m examples.over_http                        # keys, a server and the sites; the last one leaves in round 3
python -m examples.over_http keys FOLDER            # or by hand: identities, and a roster that none of them signs
python -m examples.over_http serve FOLDER           # prints its address
python -m examples.over_http join FOLDER NAME URL   # at each site, with its own key and state in FOLDER/NAME
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from examples.over_http.queues import Queues
from examples.over_http.training import PATIENCE, Rounds, join, serve
from fl.credentials import make_identity
from fl.data import load
from protocols.identity import Member, Roster, SignedRoster

SITES, ROUNDS = ("east", "north", "south", "west"), 3
DATA = load("digits")


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)


def train(name: str, module: torch.nn.Module) -> int:
    """The site's own loop over its own images."""
    mine = slice(SITES.index(name), None, len(SITES))
    x, y = torch.from_numpy(DATA.x_train[mine]), torch.from_numpy(DATA.y_train[mine])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    for at in range(0, len(y), 16):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x[at : at + 16]), y[at : at + 16]).backward()
        optimizer.step()
    return len(y)


def make_keys(folder: Path) -> None:
    """An identity for every site, and a roster that somebody else signs. For real sites `secagg keys` makes them."""
    members = [Member(name, "client", make_identity(name, folder / name).public) for name in SITES]
    authority = make_identity("authority", folder)
    SignedRoster.sign(Roster.of("digits", 1, members), authority).save(folder / "roster.json")


def server(folder: Path) -> None:
    queues = Queues(len(SITES))
    print(queues.url, flush=True)
    x, y = torch.from_numpy(DATA.x_test), torch.from_numpy(DATA.y_test)
    for number, (survivors, module) in enumerate(serve(Rounds(folder, make_model, ROUNDS), queues), 1):
        right = float((module(x).argmax(1) == y).float().mean())
        print(
            f"round {number}: the sum of {', '.join(survivors) or 'nobody'}; accuracy {right:.3f}", flush=True
        )
        save_file(module.state_dict(), folder / "model.safetensors")
    queues.stop(PATIENCE)


def site(folder: Path, name: str, url: str, leaves: str = "") -> None:
    """leaves: the number of a call of `train` in which this site dies."""
    calls = iter(range(1, ROUNDS + 1))

    def training(module: torch.nn.Module) -> int:
        if str(next(calls)) == leaves:
            raise SystemExit(0)
        return train(name, module)

    join(Rounds(folder, make_model, ROUNDS, name), name, folder / name, url, training)


def demo(folder: Path) -> None:
    make_keys(folder)
    me = [sys.executable, "-m", "examples.over_http"]
    with subprocess.Popen([*me, "serve", str(folder)], stdout=subprocess.PIPE, text=True) as serving:
        lines = iter(serving.stdout or ())
        joining, url = [*me, "join", str(folder)], next(lines).strip()
        sites = [subprocess.Popen([*joining, name, url]) for name in SITES[:-1]]
        sites.append(subprocess.Popen([*joining, SITES[-1], url, "3"]))
        for line in lines:
            print(line, end="", flush=True)
        codes = [one.wait(timeout=60) for one in sites]
    if serving.returncode or any(codes):
        raise SystemExit("The run failed.")


def main() -> None:
    match sys.argv[1:]:
        case ["keys", folder]:
            make_keys(Path(folder))
        case ["serve", folder]:
            server(Path(folder))
        case ["join", folder, name, url, *leaves]:
            site(Path(folder), name, url, *leaves)
        case []:
            with tempfile.TemporaryDirectory() as folder:
                demo(Path(folder))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
