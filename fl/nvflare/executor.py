"""A site's side: an Executor that answers the tasks of a Federation's rounds.

What belongs here: one task in, one reply out. What does not: the party behind it (`fl.network.node_party`), training.
The component keeps nothing: everything that lasts lies in the site's own store and is synced before the reply leaves.
"""

from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from fl.network.federated import part_of
from fl.network.messages import EVALUATED
from fl.network.node_party import NodeParty, told
from fl.nvflare.compat import in_simulation
from fl.nvflare.messages import ARRAYS, TASK, pack, read, refusal, unpack_request
from fl.nvflare.own_site import federation_of, own_site
from protocols.errors import require


class PrivateExecutor(Executor):  # type: ignore[misc]  # nvflare has no types
    """Plays a client of a Federation, or a helper of its secure sum.

    federation: where it is, "package.module:name", installed at the site and named in its own files.
    """

    def __init__(self, federation: str) -> None:
        super().__init__()
        self.federation = federation

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Return the answer, or why there is none: a refusal is a reply, and the server's log says it."""
        try:
            return self._answer(task_name, shareable, fl_ctx)
        except Exception as error:
            why = told(error, self.logger.log)
            self.log_warning(fl_ctx, f"refused: {why}")
            return refusal(why)

    def _answer(self, task_name: str, message: Shareable, context: FLContext) -> Shareable:
        require(task_name == TASK, f"the task {TASK!r}", f"{task_name!r}")
        simulated = in_simulation(context)
        site = own_site(context, context.get_identity_name(), simulated)
        request, frames = unpack_request(message, site.server_key)
        setup = federation_of(self.federation, site, simulated).setup
        party = NodeParty(site, lambda arrays: part_of(setup, read, arrays == EVALUATED))
        answer, out = party.answer(request, frames, message.get(ARRAYS))
        return pack(answer, out, site.identity)
