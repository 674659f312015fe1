"""A deployment of NVFlare in this process: its own task engine, contexts and serialiser, and our components.

Only sockets and job processes are not there (they are in test_nvflare_simulator.py and test_nvflare_poc.py), so that
every order of events can be forced.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import TaskCompletionStatus
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.workspace import Workspace
from nvflare.fuel.utils import fobs
from nvflare.private.fed.simulator.simulator_const import SimulatorConstants
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

from fl.network.site import FILE
from fl.nvflare import PrivateController, PrivateExecutor
from protocols.identity import Identity, Member, Roster, SignedRoster

nvflare_fobs_initialize()
ONE_AT_A_TIME = threading.Lock()
Change = Callable[[str, Shareable], Shareable | None]
"""What becomes of a message to or from a client, by its name; None: it is lost."""


def unchanged(name: str, message: Shareable) -> Shareable:
    return message


def travelled(message: Shareable) -> Shareable:
    """What the other side reads: through NVFlare's serialiser."""
    return fobs.loads(fobs.dumps(message))


class Engine:
    """What components ask of NVFlare's engine at one party. folder: its workspace."""

    def __init__(self, folder: Path, name: str, job: str, clients: tuple[str, ...], simulated: bool) -> None:
        for own in ("startup", "local"):
            (folder / own).mkdir(parents=True, exist_ok=True)
        self.workspace = Workspace(str(folder), name)
        self.clients = [Client(client, client) for client in clients]
        stickers = {FLContextKey.SIMULATE_MODE: True} if simulated else {}
        self.contexts = FLContextManager(self, name, job, private_stickers=stickers)
        self.panics: list[str] = []

    def new_context(self) -> Any:
        return self.contexts.new_context()

    def get_workspace(self) -> Workspace:
        return self.workspace

    def get_clients(self) -> list[Client]:
        return self.clients

    def fire_event(self, event_type: str, fl_ctx: Any) -> None:
        self.panics.append(str(fl_ctx.get_prop(FLContextKey.EVENT_DATA)))


class Deployment:
    """A server, and clients by name, each with its folder. before, after: what becomes of tasks and replies."""

    def __init__(
        self,
        root: Path,
        place: str,
        clients: tuple[str, ...],
        *,
        simulated: bool = True,
        before: Change = unchanged,
        after: Change = unchanged,
    ) -> None:
        self.root, self.place, self.names, self.simulated = root, place, clients, simulated
        self.before, self.after = before, after
        self.job = SimulatorConstants.JOB_NAME if simulated else "0f3a0f64-3f0a-4d4b-b2a2-4d0d5d8f0b52"
        self.executors = {name: PrivateExecutor(place) for name in clients}
        self.executed: list[str] = []
        self.abort = Signal()

    def own(self, name: str) -> Path:
        """Where a deployed party's own files lie."""
        return self.root / name / "local" / "secagg"

    def allow(self, **files: str) -> None:
        """Write each party's own site.toml, where the site names this federation. files: more lines, by party."""
        for name in ("server", *self.names):
            own = self.own(name)
            own.mkdir(parents=True, exist_ok=True)
            (own / FILE).write_text(f'federations = ["{self.place}"]\n' + files.get(name, ""))

    def play(self, rounds: int = 1, *, run: str = "run", timeout: float = 600.0) -> list[str]:
        """Run one job; return what it panicked with. A silent client is dead: nobody waits for `timeout`."""
        server = self.engine("server")
        controller = PrivateController(self.place, rounds, run, timeout)
        communicator = WFCommServer()
        controller.set_communicator(communicator)
        with server.new_context() as context:
            communicator.initialize_run(context)
            controller.initialize(context)
            with self.working(communicator, server):
                controller.control_flow(self.abort, context)
            communicator.finalize_run(context)
        return server.panics

    def engine(self, name: str) -> Engine:
        return Engine(self.root / name, name, self.job, self.names, self.simulated)

    @contextmanager
    def working(self, communicator: WFCommServer, server: Engine) -> Iterator[None]:
        """Clients that look for tasks and answer them, each in its own thread."""
        over = threading.Event()
        given = [(name, communicator, server, over) for name in self.names]
        threads = [threading.Thread(target=self.work, args=one, daemon=True) for one in given]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(300)

    def work(self, name: str, communicator: WFCommServer, server: Engine, over: threading.Event) -> None:
        client, own, asked = Client(name, name), self.engine(name), set[str]()
        while not over.is_set():
            time.sleep(0.01)
            with server.new_context() as context:
                task, number, data = communicator.process_task_request(client, context)
            if not task or number in asked:
                continue
            asked.add(number)
            delivered = self.before(name, travelled(data))
            reply = None
            if delivered is not None:
                reply = self.after(name, self.execute(name, task, delivered, own))
            if reply is None:  # as NVFlare does once it takes a client for dead
                standing = communicator.process_task_check(number, context)
                standing.task.completion_status = TaskCompletionStatus.CLIENT_DEAD
                continue
            with server.new_context() as context:
                communicator.process_submission(client, task, number, travelled(reply), context)

    def execute(self, name: str, task: str, message: Shareable, own: Engine | None = None) -> Shareable:
        """What a client answers to a task."""
        engine = own or self.engine(name)
        with (
            ONE_AT_A_TIME,
            engine.new_context() as context,
        ):  # a site is a process, with its own generator in torch
            self.executed.append(name)
            return self.executors[name].execute(task, message, context, Signal())


def rostered(deployment: Deployment, roles: Mapping[str, str] | None = None) -> None:
    """Give every party but a stranger an identity and a signed roster. roles: of those that are no clients."""
    known = {"server": "server", **(roles or {})}
    parties = {n: Identity.generate(n) for n in ("server", *deployment.names) if n != "stranger"}
    authority = Identity.generate("authority")
    members = tuple(Member(n, known.get(n, "client"), i.public) for n, i in sorted(parties.items()))
    signed = SignedRoster.sign(Roster("demo", 1, members), authority)
    named = f'roster = "roster.json"\nidentity = "own.key"\nauthority = "{authority.public.hex()}"\n'
    for name, identity in parties.items():
        deployment.own(name).mkdir(parents=True)
        identity.save(deployment.own(name) / "own.key")
        signed.save(deployment.own(name) / "roster.json")
    deployment.allow(**{name: f'name = "{name}"\n{named}' for name in parties})
