"""A Federation's clients as an app that names the federation, and imports it where it is needed alone.

What belongs here: which requests need no training. What does not: the app of a federation that is there (`apps`), which
imports torch; a wrapped app that is named (`mod.private_app`).
"""

import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fl.flower.messages import is_protected, unpack_request
from fl.flower.mod import answered, find_site, refusing, site_folder
from fl.network.messages import CLOSE, EVALUATED, STEP, Request
from fl.network.node_party import Begun, Part
from fl.network.site import Site, is_on_roster, session_key
from fl.registry import layers_of
from protocols.stack import Stack


def federation_app(federation: str, privacy: Callable[[Site], Sequence[Any]]) -> ClientApp:
    """Return the clients of the Federation at `federation`, "module:attribute", as its own `client_app(privacy=...)`.

    Its module, and torch with it, is imported to train and to evaluate. The other trips of a node on a signed roster
    need its layers alone: `privacy` makes them from the node's own `Site`, so let it stand in a module that imports no
    more than they do.

        client = federation_app("ward.federation:federation", layers)
    """
    app = ClientApp()

    def whole(message: Message, context: Context) -> Message:
        client: ClientApp = pkgutil.resolve_name(federation).client_app(privacy=privacy)
        return client(message, context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        def answer() -> Message:
            if not is_protected(message.content) or not is_on_roster(site_folder(None, context)[0]):
                return whole(message, context)
            own = find_site(None, context)
            if _trains(own, unpack_request(message.content, None)[0]):
                return whole(message, context)
            stack = Stack(layers_of(privacy(own))).over_network()
            return answered(message, own, lambda arrays: Part(stack, _NOTHING))

        return refusing(answer, message)

    return app


_NOTHING: Any = None
"""The work of a request that asks for none."""


def _trains(own: Site, request: Request) -> bool:
    """Whether a request needs the federation: one that begins a session, and one of an evaluation, whose layers are
    others.
    """
    if request.kind not in (STEP, CLOSE):
        return True
    saved = own.store.get(session_key(request.context))
    return saved is not None and Begun.decode(saved).arrays == EVALUATED
