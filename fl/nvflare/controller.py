"""The server's side: a Controller that plays a Federation's rounds, one task for each client of a trip.

What belongs here: tasks and their replies. What does not: a sum (`fl.network`), rounds (`fl.round`). The component
keeps nothing: run, record and counters are files of the server's own.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from logging import ERROR
from queue import Empty, SimpleQueue

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task, TaskCompletionStatus
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from fl.federation import Federation
from fl.network.directory import Directory, Node, from_names, from_roster
from fl.network.federated import require_own_evaluation
from fl.network.run_rounds import run_rounds
from fl.network.server_party import Enough, Reply, Sent, ServerParty, server_files
from fl.network.site import Site
from fl.nvflare.compat import simulates
from fl.nvflare.messages import TASK, Arrays, arrays_of, failure_of, pack, unpack_answer
from fl.nvflare.own_site import federation_of, own_site
from fl.round import ModelLayout, Tree
from fl.round.result import require_total
from protocols.errors import Misuse, SecAggError
from protocols.numbers import positive, whole

LOOK_SECONDS = 0.02
Arrived = SimpleQueue[tuple[str, Shareable]]


class PrivateController(Controller):  # type: ignore[misc]  # nvflare has no types
    """Runs `rounds` rounds of a Federation, or those that are left of the run in the server's files.

    federation: where it is, "package.module:name", installed at the server and named in its own files. run: the name
    of the run, one word: a job that is submitted again under it goes on. timeout: seconds per trip.
    """

    def __init__(self, federation: str, rounds: int, run: str = "run", timeout: float = 600.0) -> None:
        super().__init__(task_check_period=LOOK_SECONDS)
        self.federation, self.rounds, self.run = federation, whole("rounds", rounds, 1), run
        self.timeout = positive("timeout", timeout)
        if not run.replace("-", "").replace("_", "").isalnum():
            raise Misuse(f"run: expected a name of letters, digits, - and _, got {run!r}")

    def start_controller(self, fl_ctx: FLContext) -> None: ...

    def stop_controller(self, fl_ctx: FLContext) -> None: ...

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """A reply that comes after its trip, or to a task that was never sent, counts for nothing."""
        self.log_warning(
            fl_ctx, f"{client.name!r} answers {task_name!r} {client_task_id!r}, which nobody waits for"
        )

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Play the rounds. A run that fails ends the job as failed, with its reason."""
        try:
            self._play(abort_signal, fl_ctx)
        except SecAggError as error:
            self.logger.log(ERROR, "the run ended: %s", error)
            self.system_panic(f"{type(error).__name__}: {error}", fl_ctx)

    def _play(self, abort: Signal, context: FLContext) -> None:
        simulated = simulates(context)
        site = own_site(context, "server", simulated)
        playing = federation_of(self.federation, site, simulated)
        require_own_evaluation(playing.setup)
        if playing.setup.strategy.buffers is not None:
            raise Misuse(
                f"{playing.setup.strategy.name} needs rounds without waiting, which NVFlare's tasks do not give"
            )
        server = TaskParty(self, context, abort, playing, site, self.run, simulated)
        require_total(run_rounds(playing, server, self.rounds, self.timeout).history)


class TaskParty(ServerParty[Arrays]):
    """The server of one run, which reaches its clients by NVFlare's tasks.

    Who answered is the client that NVFlare gives with the task, whose connection it authenticated; what a message says
    of its sender is compared with that and counts for nothing else.
    """

    def __init__(
        self,
        controller: PrivateController,
        context: FLContext,
        abort: Signal,
        playing: Federation,
        site: Site,
        run: str,
        simulated: bool,
    ) -> None:
        if playing.setup.output is None and site.folder is not None:
            playing.setup.output = site.folder / "runs" / run
        store, _ = server_files(playing.setup.output, None, None, None)
        protocol, log = playing.setup.stack.secure_sum, controller.logger.log
        super().__init__(protocol, store, site.roster, site.identity, log)
        self.controller, self.context, self.abort = controller, context, abort
        self.names, self.played_here = playing.setup.names, simulated

    @property
    def simulated(self) -> bool:
        return self.played_here

    def show(self, arrays: Tree, layout: ModelLayout) -> Arrays:
        return arrays_of(layout.arrays, arrays)

    def look(self) -> Directory:
        """Return who is connected: the job's clients, by the names in their certificates. Raises as `ask` does."""
        self._require_going()
        present = [client.name for client in self.context.get_engine().get_clients()]
        if self.roster is None:
            return from_names({name: name for name in present}, self.names, self.helpers)
        members = {m.name for m in self.roster.members}
        return from_roster(self.roster, {name: name for name in present if name in members}, present)

    def ask(
        self, requests: Mapping[Node, Sent[Arrays]], seconds: float, group: str, enough: Enough = lambda: True
    ) -> Iterator[Reply]:
        """As `ServerParty.ask`; it waits no longer. Raises SecAggError once the job is aborted."""
        arrived: Arrived = SimpleQueue()
        tasks = dict[Node, Task]()
        waiting, deadline = set(requests), time.monotonic() + seconds
        try:
            for node, sent in requests.items():
                tasks[node] = self._send(str(node), sent, arrived, seconds)
            while waiting:
                late = time.monotonic() >= deadline  # whatever came in time is taken: one last look
                for name, message in self._taken(arrived):
                    if name in waiting:
                        waiting.discard(name)
                        yield Reply(name, failure_of(message), partial(unpack_answer, message))
                waiting -= {node for node in waiting if arrived.empty() and _is_lost(tasks[node])}
                if late:
                    break
        finally:
            for node in waiting & tasks.keys():
                self.controller.cancel_task(tasks[node])

    def _taken(self, arrived: Arrived) -> list[tuple[str, Shareable]]:
        """Return what came by now; what comes with an abort, or after it, counts for nothing."""
        taken = []
        with suppress(Empty):
            taken.append(arrived.get(timeout=LOOK_SECONDS))
            while True:
                taken.append(arrived.get_nowait())
        self._require_going()
        return taken

    def _require_going(self) -> None:
        if self.abort.triggered:
            raise SecAggError("the job was aborted")

    def _send(self, name: str, sent: Sent[Arrays], arrived: Arrived, seconds: float) -> Task:
        """Send one client its own task, with data that nobody else is sent and nothing changes later."""

        def received(client_task: ClientTask, fl_ctx: FLContext) -> None:
            arrived.put((client_task.client.name, client_task.result))

        self._require_going()
        data = pack(sent.request, sent.frames, self.identity, sent.shown)
        task = Task(TASK, data, timeout=math.ceil(seconds) + 1, result_received_cb=received)
        self.controller.send(task, self.context, targets=[name])
        return task


def _is_lost(task: Task) -> bool:
    """Whether NVFlare has given a task up: its client is gone."""
    return task.completion_status not in (None, TaskCompletionStatus.OK)
