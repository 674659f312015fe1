"""A secure sum over plain HTTP: the roles of any SecureSum, carried by nothing but Python's http.server and urllib.

    python examples/http_roles.py                        # a server and six clients, each a process of its own
    python examples/http_roles.py --protocol none        # the same without masks
    python examples/http_roles.py --clients 3 serve      # or by hand: prints its address,
    python examples/http_roles.py join URL --index 0     # and for each client this

The protocol does no I/O: `SecureSum.server` and `.client` give a first step, `receive` and `close` the following ones.
A driver, this file, moves the frames and decides when a stage has waited long enough. Each client keeps its state
in its own sealed file; what it answers is saved before it is sent, so that a restarted client never answers twice.

What this example leaves out: TLS, and proof of who calls. Anyone who reaches the port may claim to be client 3;
signed rosters (`secagg keys`) and HTTPS are for that.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from fl.registry import PRIVACY
from protocols import Policy, SecureSum
from protocols.errors import SecAggError
from protocols.kernel import Message, Step
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.session import Session
from protocols.store import FileStore
from protocols.summation import Total

MODEL = b"the model of round 1, as it is broadcast"
DIMENSION = 1000
BOUND = 10_000
PATIENCE = 5.0
"""Seconds that a stage stays open after its latest answer; who is later has left."""
LONGEST_SILENCE = 60.0
"""Seconds that a stage stays open without any answer at all."""
LONGEST_FRAME = 64 << 20


def protocol_named(name: str) -> SecureSum:
    """The secure sum that a name of `secagg run --privacy` means."""
    built = PRIVACY.build(name)
    if not isinstance(built, SecureSum):
        raise SystemExit(f"{name} is no secure sum: take none, secagg or secagg+.")
    return built


def private_vector(index: int) -> np.ndarray:
    """A stand-in for a client's quantised update: int64 in [-BOUND, BOUND]. Real ones come from training."""
    return np.random.default_rng(index).integers(-BOUND, BOUND + 1, DIMENSION)


# ---- the server -----------------------------------------------------------------------------------------


class Exchange:
    """The server's side of one session: its state, and for each client the frames that wait to be fetched."""

    def __init__(self, protocol: SecureSum, session: Session) -> None:
        self.session = session
        self.random = SystemRandom()
        self.changed = threading.Condition()
        self.waiting = [deque[bytes]() for _ in session.roster]
        self.over = False
        self._take(protocol.server(session, random=self.random))

    def run(self, patience: float) -> Total:
        """Closes each stage when everyone has answered or patience ends; returns the total.

        Raises Aborted where too few clients are left.
        """
        with self.changed:
            try:
                while not isinstance(self.state, Total):
                    self._wait(patience)
                    self._take(self.state.close(self.random))
                return self.state
            finally:
                self.over = True
                self.changed.notify_all()

    def answer(self, frame: bytes) -> None:
        """Takes a client's frame. Raises PeerError where it is no valid answer now; then nothing has changed."""
        with self.changed:
            self._take(self.state.receive(Message.from_wire(frame), self.random))

    def next_for(self, index: int) -> bytes | None:
        """The next frame for a client, waiting a few seconds for one; empty: ask again; None: it is over."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting[index] or self.over, timeout=5)
            if self.waiting[index]:
                return self.waiting[index].popleft()
            return None if self.over else b""

    def _wait(self, patience: float) -> None:
        """Until all have answered, or for `patience` seconds nobody else has."""
        silence = LONGEST_SILENCE
        while before := self._missing():
            self.changed.wait_for(lambda known=before: self._missing() < known, timeout=silence)
            if self._missing() == before:
                return
            silence = patience

    def _missing(self) -> int:
        return len(list(self.state.waiting_for()))

    def _take(self, step: Step) -> None:
        with self.changed:
            self.state = step.state
            for message in step.send:
                self.waiting[message.recipient.number].append(message.to_wire())
            self.changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    """GET /session, /model, /next/INDEX; POST /answer."""

    exchange: Exchange
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        place, _, rest = self.path.lstrip("/").partition("/")
        if place == "session":
            self._reply(200, self.exchange.session.encode())
        elif place == "model":
            self._reply(200, MODEL)
        elif place == "next" and rest.isdigit() and int(rest) < self.exchange.session.clients:
            frame = self.exchange.next_for(int(rest))
            self._reply(410 if frame is None else 200 if frame else 204, frame or b"")
        else:
            self._reply(404, b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/answer" or not length.isdigit() or int(length) > LONGEST_FRAME:
            self._reply(400, b"POST /answer with a Content-Length")
            return
        try:
            self.exchange.answer(self.rfile.read(int(length)))
        except SecAggError as error:
            self._reply(400, str(error).encode())
        else:
            self._reply(204, b"")

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the frames are sealed, but who talks when is nobody's business here."""


def serve(protocol: SecureSum, clients: int, port: int, patience: float) -> None:
    """Runs one session and prints, as JSON, first the address and then the total's digest and the survivors."""
    session = protocol.session(
        [f"site-{index}" for index in range(clients)],
        DIMENSION,
        BOUND,
        random=SystemRandom(),
        model=hashlib.sha256(MODEL).digest(),
        min_survivors=2,
    )
    exchange = Exchange(protocol, session)
    handler = type("Bound", (Handler,), {"exchange": exchange})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}), flush=True)
        try:
            total = exchange.run(patience)
            print(json.dumps({"survivors": total.survivors, "total": total.total.tolist()}), flush=True)
            time.sleep(0.5)  # lets the clients who are waiting hear that it is over
        except SecAggError as error:
            raise SystemExit(f"No total: {error}") from None
        finally:
            server.shutdown()


# ---- a client -------------------------------------------------------------------------------------------


def join(protocol: SecureSum, url: str, index: int, folder: Path, leave: str | None) -> None:
    """Takes part as client `index` until the server says that it is over; `leave` names a stage it never answers."""
    offered = Session.decode(fetch(f"{url}/session"))
    session = replace(
        offered, model=hashlib.sha256(fetch(f"{url}/model")).digest()
    )  # the model *we* were sent
    runtime = Runtime(protocol, session, FileStore(folder / f"client-{index}.state", f"client-{index}"))
    first = protocol.client(session, index, private_vector(index), random=SystemRandom(), policy=Policy())
    post_all(url, runtime.begin(first))
    for frame in frames(url, index):
        message = Message.from_wire(frame)
        if message.stage == leave:
            return
        post_all(url, runtime.handle(message))


def frames(url: str, index: int) -> Iterable[bytes]:
    """The server's frames for a client, one after another, until it is over."""
    while True:
        try:
            frame = fetch(f"{url}/next/{index}")
        except urllib.error.HTTPError as error:
            if error.code == 410:
                return
            raise
        if frame:
            yield frame


def fetch(url: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60) as answer:
        return bytes(answer.read(LONGEST_FRAME))


def post_all(url: str, messages: Iterable[Message]) -> None:
    for message in messages:
        fetch(f"{url}/answer", message.to_wire())


# ---- everything at once ---------------------------------------------------------------------------------


def demo(name: str, clients: int, patience: float) -> None:
    """A server and `clients` clients as processes; the last one leaves before its input. Checks the total."""
    me = [sys.executable, __file__]
    protocol = protocol_named(name)
    probe = protocol.session([str(i) for i in range(clients)], DIMENSION, BOUND, random=SystemRandom())
    leave = next(stage.name for stage in protocol.stages(probe) if stage.counts)
    options = ["--protocol", name, "--clients", str(clients), "--patience", str(patience)]
    command = [*me, *options, "serve"]
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        address = server.stdout.readline() if server.stdout else b""
        url = json.loads(address)["url"]
        print(f"The server listens on {url}; client {clients - 1} will leave before the stage {leave!r}.")
        joining = [*me, *options, "join", url, "--folder", folder, "--index"]
        leaving = [[]] * (clients - 1) + [["--leave", leave]]
        others = [subprocess.Popen([*joining, str(index), *more]) for index, more in enumerate(leaving)]
        answer = server.communicate(timeout=300)[0]
        codes = [process.wait(timeout=60) for process in others]
    if server.returncode:
        raise SystemExit(server.returncode)
    result = json.loads(answer)
    survivors = result["survivors"]
    expected = sum(private_vector(index) for index in survivors)
    print(f"Survivors: {survivors}. Their sum, first coordinates: {result['total'][:5]}.")
    if any(codes) or survivors != list(range(clients - 1)) or result["total"] != list(expected):
        raise SystemExit("The total is not the sum of the survivors' vectors.")
    print(f"It is the sum of their vectors, exactly, in all {DIMENSION} coordinates.")


def main() -> None:
    parser = argparse.ArgumentParser(description="A secure sum over plain HTTP on the loopback.")
    parser.add_argument("--protocol", default="secagg", help="none, secagg or secagg+")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds per stage")
    commands = parser.add_subparsers(dest="command")
    serving = commands.add_parser("serve")
    serving.add_argument("--port", type=int, default=0)
    joining = commands.add_parser("join")
    joining.add_argument("url")
    joining.add_argument("--index", type=int, required=True)
    joining.add_argument("--folder", type=Path, default=Path("http-roles-state"))
    joining.add_argument("--leave", help="a stage that this client never answers")
    given = parser.parse_args()
    if given.command == "serve":
        serve(protocol_named(given.protocol), given.clients, given.port, given.patience)
    elif given.command == "join":
        join(protocol_named(given.protocol), given.url, given.index, given.folder, given.leave)
    else:
        demo(given.protocol, given.clients, given.patience)


if __name__ == "__main__":
    main()
