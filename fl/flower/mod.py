"""The client's side: a Flower mod that lets nothing leave but what the privacy layers allow.

What belongs here: one message in, one answer out. What does not: the party behind it (`fl.network`), training
(the wrapped app), the server. A ClientApp may run in a new process for every message, and two at once:
everything that lasts lies in the node's own store and is synced before the answer leaves.
"""

import logging
import os
import pkgutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from fl.flower.compat import ClientAppCallable, Mod, in_simulation, log, refusal
from fl.flower.messages import is_protected, pack, strip, unpack_request
from fl.flower.work import WrappedApp
from fl.network.node_party import NodeParty, Part, told
from fl.network.site import CONFIG_KEY, Site, load_site
from fl.registry import layers_of
from protocols.errors import PolicyRefusal, StackError, refuse, require
from protocols.stack import Numbers, Stack

LOG = logging.getLogger("fl.client")
"""The node's own log; the server's is flwr's."""
Evaluate = Literal["refuse", "clear"]
SIMULATION = "simulation"
Privacy = Sequence[Any] | Callable[[Site], Sequence[Any]]


def privacy_mod(
    privacy: Privacy = (),
    *,
    numbers: Numbers | None = None,
    site: Path | str | None = None,
    evaluate: Evaluate = "refuse",
    weight: str | None = None,
) -> Mod:
    """Return the mod: `ClientApp(mods=[privacy_mod([SecAggPlus()])])`. Put it first, so that nothing runs outside it.

    privacy, numbers: as in `PrivateStrategy` on the server; a difference shows in the session's context and ends the
    round. privacy may be a function of the node's `Site`, for layers that need this node's credentials. site: the
    folder with this node's own files; by default the SuperNode's --node-config says it (`secagg-site`), and a node
    that says nothing is refused. In Flower's simulation, where one machine plays everybody, it is a private temporary
    folder per run and node; "simulation" says so too, and "simulation:FOLDER" puts them below a private folder.
    evaluate: "clear" lets evaluation metrics leave unprotected. weight: the metric that a node counts by, where the
    server may name no other (default: the one that it names, the same for all nodes; one that is 0 at most nodes leaves
    the rest alone in the mean).

    Raises Misuse or StackError for layers that do not compose, and for one that must wrap the training itself.
    """
    chosen = numbers or Numbers()
    require(evaluate in ("refuse", "clear"), 'evaluate to be "refuse" or "clear"', f"{evaluate!r}")
    if callable(privacy) and not isinstance(privacy, type):  # a layer's class is refused as a list would be
        make = privacy
        return _PrivacyMod(
            lambda own: _without_local(Stack(layers_of(make(own)), chosen)), site, evaluate, weight
        )
    stack = _without_local(Stack(layers_of(privacy), chosen))
    return _PrivacyMod(lambda own: stack, site, evaluate, weight)


def private_app(app: str, privacy: Privacy = (), **options: Any) -> ClientApp:
    """Return the ClientApp `app`, named "module:attribute" as in pyproject.toml, behind a `privacy_mod` (whose options
    these are). Its module is imported to train, and to evaluate; every other message spares what that imports.

        client = private_app("my_app.client_app:app", [SecAggPlus()])
    """

    def call(message: Message, context: Context) -> Message:
        found: ClientApp = pkgutil.resolve_name(app)
        return found(message, context)

    made = ClientApp(mods=[privacy_mod(privacy, **options)])
    made.train()(call)
    made.evaluate()(call)
    return made


@dataclass(frozen=True)
class _PrivacyMod:
    stack_for: Callable[[Site], Stack]
    site: Path | str | None
    evaluate: Evaluate
    weight: str | None

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        return refusing(lambda: self._answer(message, context, call_next), message)

    def _answer(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        kind = message.metadata.message_type.partition(".")[0]
        if kind == "evaluate" and self.evaluate == "clear":
            return call_next(message, context)
        if kind != "train":
            raise PolicyRefusal(f"{kind}: its reply would leave unprotected; this node answers training only")
        require_protected(message)
        own = find_site(self.site, context)
        stack = self.stack_for(own)
        work = WrappedApp(stack, message, lambda inner: call_next(inner, context), self.weight)
        return answered(message, own, lambda arrays: Part(stack, work))


def answered(message: Message, own: Site, part_of: Callable[[str], Part[RecordDict]]) -> Message:
    """Return a node's protected reply. Raises what `NodeParty.answer` does."""
    if (kind := message.metadata.message_type) != MessageType.TRAIN:  # no signature covers it
        raise refuse(f"expected a message of type 'train', got {kind!r}")
    request, frames = unpack_request(message.content, own.server_key)
    if request.late:
        LOG.warning("the server says that this node's answer came too late, after %.0f s", request.late)
    answer, out = NodeParty(own, part_of).answer(request, frames, strip(message.content))
    return Message(pack(answer, out, own.identity), reply_to=message)


def require_protected(message: Message) -> None:
    """Raises PolicyRefusal for a training message that is not one of ours."""
    if not is_protected(message.content):
        raise PolicyRefusal("a training message without a session: its reply would leave unprotected")


def refusing(answer: Callable[[], Message], message: Message) -> Message:
    """Return the answer, or a refusal: refusals are answers, and the server's log says why."""
    try:
        return answer()
    except Exception as error:
        why = told(error, log)
        LOG.warning("this node refuses: %s", why)
        return refusal(why, message)


def _without_local(stack: Stack) -> Stack:
    for layer in stack.layers:
        if layer.needs_local():
            raise StackError(f"{layer.name} must own the training loop: use Federation.client_app()")
    return stack.over_network()


def find_site(site: Path | str | None, context: Context, name: str | None = None) -> Site:
    """Return this node's site; `name` is what a Federation calls it where its own files say nothing ("" for nothing
    either): behind a mod alone a node is called by its id, unless a roster names it. Raises PolicyRefusal.
    """
    folder, sync = site_folder(site, context)
    return load_site(folder, context.node_id, name, sync=sync, node_config=context.node_config)


def site_folder(site: Path | str | None, context: Context) -> tuple[Path, bool]:
    """Return where this node's site lies, and whether its files must outlive a crash of the machine: simulated ones
    need not. Raises PolicyRefusal.
    """
    config = context.node_config
    if site is None and CONFIG_KEY not in config and in_simulation():
        site = SIMULATION
    if isinstance(site, str) and site.partition(":")[0] == SIMULATION:
        return _simulated(context, site.partition(":")[2]), False
    place = site if site is not None else config.get(CONFIG_KEY)
    if not place:
        raise PolicyRefusal(
            f"no place for this node's state: start the SuperNode with --node-config '{CONFIG_KEY}=\"/srv/secagg\"', a "
            "folder of its own, which is made on first use"
        )
    return Path(str(place)), True


def _simulated(context: Context, given: str) -> Path:
    """Return a simulated node's folder, below the one that was given or a private one of this user."""
    root = Path(given) if given else Path(tempfile.gettempdir()) / f"secagg-simulation-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    found = root.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or root.is_symlink():
        raise PolicyRefusal(f"{root} is not this user's alone")
    return root / f"run-{context.run_id}" / f"node-{context.node_id}"
