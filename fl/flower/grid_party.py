"""The server over Flower's grid: its messages, and which nodes are who.

What does not belong here: a sum (`fl.network`), where plans come from (`rounds`, `fl.coordinator`).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from logging import WARNING

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fl.flower.arrays import arrays_of
from fl.flower.compat import failure_of, is_simulated, log, node_keys
from fl.flower.messages import pack, unpack_answer
from fl.flower.nodes import bound_to
from fl.network.directory import Directory, Node, from_names, from_roster, without_roster
from fl.network.messages import HELLO, Answer, sessionless
from fl.network.server_party import Enough, Reply, Sent, ServerParty
from fl.round import ModelLayout, Tree
from protocols.errors import PeerError
from protocols.identity import Identity, Roster
from protocols.store import Store
from protocols.summation import SecureSum

HELLO_SECONDS, SILENT_SECONDS = 60.0, 600.0
"""How long a node has to say its name; when one that does not is asked again, unless it goes and comes back."""
POLL_SECONDS = 0.1
AWAITED_SECONDS = 60.0
"""After so long a trip says whom it waits for."""
PATIENCE, LONGEST = 4, 3600.0
"""How many times the seconds of a trip a busy federation is given, and the seconds that no trip outlasts by that."""


class GridParty(ServerParty[RecordDict]):
    """The server of one run over a grid.

    roster: signed and verified, or None: clients are then called what nodes say, where `names` are the clients of a
    federation, else by Flower's node ids. poll: seconds between two looks for replies. config: what every node is shown
    beside the model.
    """

    def __init__(
        self,
        grid: Grid,
        protocol: SecureSum,
        store: Store,
        roster: Roster | None = None,
        identity: Identity | None = None,
        poll: float = POLL_SECONDS,
        layout: ModelLayout | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(protocol, store, roster, identity, log, layout)
        self.grid, self.poll, self.names = grid, poll, names
        self._said, self._silent = dict[Node, str](), dict[Node, float]()
        self.config: ConfigRecord | None = None
        self._slowest, self._unanswered = 0.0, dict[str, tuple[str, float]]()

    @property
    def simulated(self) -> bool:
        return is_simulated(self.grid)

    def show(self, arrays: Tree, layout: ModelLayout) -> RecordDict:
        shown = RecordDict({layout.arrays: arrays_of(arrays)})
        if self.config is not None:
            shown[layout.config] = self.config
        return shown

    def message(self, node: Node, sent: Sent[RecordDict], seconds: float, group: str) -> Message:
        """Return a signed request as it travels."""
        records = {**(sent.shown or {}), **pack(sent.request, sent.frames, self.identity)}
        return Message(RecordDict(records), int(node), "train", ttl=seconds, group_id=group)

    def ask(
        self,
        requests: Mapping[Node, Sent[RecordDict]],
        seconds: float,
        group: str,
        enough: Enough = lambda: True,
    ) -> Iterator[Reply]:
        """As `ServerParty.ask`. It waits longer than `seconds`, up to `PATIENCE` times as long, where the slowest
        answer took more than half of that the last time, or until the caller has `enough`. An answer that comes later
        is noted; refusals are none.
        """
        most = max(seconds, min(PATIENCE * seconds, LONGEST))
        messages = [self.message(node, sent, most, group) for node, sent in requests.items()]
        pending = {message_id for message_id in self.grid.push_messages(messages) if message_id}
        waiting, began = set(requests), time.monotonic()
        slowest = max([self._slowest, *(sent.request.late for sent in requests.values())])
        usual = min(most, max(seconds, 2 * slowest))
        self._slowest /= 2  # a slow trip is forgotten again
        telling = began + AWAITED_SECONDS
        while pending and waiting:
            deadline = began + (usual if enough() else most)
            late = time.monotonic() >= deadline  # whatever came in time is taken: one last look
            for reply in list(self.grid.pull_messages([*pending, *self._unanswered])):
                asked, node = reply.metadata.reply_to_message_id, reply.metadata.src_node_id
                if (trip := self._unanswered.pop(asked, None)) is not None:
                    if not reply.has_error():
                        self._note_late(node, *trip)
                    continue
                pending.discard(asked)
                if node in waiting:
                    waiting.discard(node)
                    if not reply.has_error():
                        self._slowest = max(self._slowest, time.monotonic() - began)
                    yield Reply(node, failure_of(reply), partial(_opened, reply))
            if late:
                break
            if time.monotonic() >= telling:
                telling, left_s = deadline, deadline - time.monotonic()
                log(WARNING, "waiting for nodes %s, for %.0f s more", ", ".join(map(str, waiting)), left_s)
            if pending and waiting:
                time.sleep(min(self.poll, max(0.0, deadline - time.monotonic())))
        left = {mid: asked for mid, asked in self._unanswered.items() if began - asked[1] < LONGEST}
        self._unanswered = left | dict.fromkeys(pending, (group, began))

    def _note_late(self, node: Node, group: str, began: float) -> None:
        """Note an answer to an earlier trip: the node is told with its next request."""
        self.late[node] = time.monotonic() - began
        log(
            WARNING,
            "node %d answered a trip of round %s after %.0f s, too late",
            node,
            group,
            self.late[node],
        )

    def look(self) -> Directory:
        """Return who is connected: by the roster, else by the names that nodes say, else by node ids."""
        if self.roster is not None:
            keys = node_keys(self.grid)
            return from_roster(self.roster, bound_to(self.roster, keys), keys)
        if self.names is None:
            return without_roster(self.grid.get_node_ids(), self.helpers)
        return from_names(self._by_name(), self.names, self.helpers)

    def _by_name(self) -> dict[Node, str]:
        """Return the nodes by the names they say; each is asked once, and one that is silent again after a while."""
        present = [int(node) for node in self.grid.get_node_ids()]
        request, now = Sent[RecordDict](sessionless(HELLO, "", None)), time.monotonic()
        for node in [n for n, until in self._silent.items() if n not in present or now >= until]:
            del self._silent[node]
        strangers: dict[Node, Sent[RecordDict]] = {
            n: request for n in present if n not in {*self._said, *self._silent}
        }
        self._silent.update(dict.fromkeys(strangers, now + SILENT_SECONDS))
        for reply in self.ask(strangers, HELLO_SECONDS, HELLO) if strangers else ():
            del self._silent[reply.node]
            try:
                if (why := reply.failure) is None:
                    self._said[reply.node] = reply.opened(None)[0].name
                    continue
            except PeerError as error:
                why = str(error)
            log(WARNING, "node %d says no name: %s", reply.node, why)
        return {node: name for node, name in self._said.items() if node in present}


def _opened(reply: Message, key: bytes | None) -> tuple[Answer, list[bytes]]:
    return unpack_answer(reply.content, key)
