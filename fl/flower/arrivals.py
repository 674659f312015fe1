"""Rounds without waiting, over Flower: nodes work on models while others are summed, and say when they are done.

What belongs here: how a model is handed to a node, and who is done (`fl.round.buffers.Arrivals`). What does not: what
goes into a sum (`fl.round.buffers`), what a node keeps of its work (`prepared`).
"""

import time
from logging import WARNING

from flwr.app import Message, RecordDict

from fl.coordinator import Coordinator
from fl.flower.compat import failure_of, log
from fl.flower.grid_party import GridParty
from fl.flower.messages import unpack_answer
from fl.network.messages import WORK, sessionless
from fl.network.server_party import Sent
from fl.round import RoundTerms, RunHeader
from fl.round.run_files import Json
from protocols.errors import Misuse, PeerError


class GridArrivals:
    """Hands the newest model to nodes. timeout: seconds that a node's work may take, and that a buffer waits for
    anybody to be done.
    """

    goes_on = False

    def __init__(self, server: GridParty, coordinator: Coordinator, timeout: float) -> None:
        self.server, self.coordinator, self.timeout = server, coordinator, timeout
        self.pending: dict[str, str] = {}
        self.done: list[str] = []

    def start(self, client: str, version: int) -> None:
        """Ask a node to work on the newest model, which is version `version`. One that is not connected is as slow as
        one that never ends.
        """
        self._forget(client)
        if (node := self.server.connected().clients.get(client)) is None:
            return
        message = self.server.message(node, self._request(client), self.timeout, f"version {version}")
        for message_id in self.server.grid.push_messages([message]):
            self.pending[message_id] = client

    def wait(self) -> str | None:
        deadline = time.monotonic() + self.timeout
        while not self.done:
            late = time.monotonic() >= deadline
            for reply in list(self.server.grid.pull_messages(list(self.pending))):
                self._take(reply)
            if not self.done and (late or not self.pending):
                return None
            if not self.done:
                time.sleep(min(self.server.poll, max(0.0, deadline - time.monotonic())))
        return self.done.pop(0)

    def state(self) -> Json:
        return {}

    def restore(self, state: Json) -> None:
        """Nothing goes on: nodes are asked anew."""

    def _forget(self, client: str) -> None:
        self.pending = {mid: name for mid, name in self.pending.items() if name != client}
        self.done = [name for name in self.done if name != client]

    def _request(self, client: str) -> Sent[RecordDict]:
        """Return the newest model with the chain that it is a link of."""
        coordinator, buffers = self.coordinator, self.coordinator.setup.strategy.buffers
        if coordinator.run is None or buffers is None:
            raise Misuse("expected prepare(rounds) of a run in buffers before its first model is handed out")
        reference, origin = coordinator.reference(), coordinator.origin
        manifest, _ = buffers.started((client,), reference, origin.scope)
        run = RunHeader.of(coordinator.run)
        terms = RoundTerms(origin, run, buffers.over + 1, manifest=manifest)
        request = sessionless(WORK, client, self.server.header(terms))
        return Sent(request, shown=self.server.show(reference.shown, origin.layout))

    def _take(self, reply: Message) -> None:
        client = self.pending.pop(reply.metadata.reply_to_message_id, None)
        if client is None:
            return
        if (why := failure_of(reply)) is None:
            try:
                answer, _ = unpack_answer(reply.content, self.server.connected().keys.get(client))
                if (answer.name, answer.stage) != (client, WORK):
                    raise PeerError(f"an answer to {answer.stage!r} by {answer.name!r}", client)
                self.done.append(client)
            except PeerError as error:
                why = str(error)
        if why is not None:
            log(WARNING, "%s did not work on its model: %s", client, why)
