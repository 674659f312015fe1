"""A request, or an answer, as NVFlare's Shareable: bytes alone, so that no class of ours is made from what comes.

What does not belong here: what they say (`fl.network.messages`), sending.
"""

from nvflare.apis.shareable import Shareable

from fl.network.messages import Answer, Body, Frames, Request, check, sealed, words_of
from fl.network.npy import from_npy, npy
from fl.round import Tree
from protocols.errors import WireError
from protocols.identity import Identity

Arrays = dict[str, dict[str, bytes]]
"""A model as it travels: the arrays by the name of all of them."""
TASK = "secagg"
BODY, FRAMES, ARRAYS, REFUSED = "secagg.body", "secagg.frames", "secagg.arrays", "secagg.refused"


def pack(body: Body, frames: Frames, signer: Identity | None, shown: Arrays | None = None) -> Shareable:
    """Return one message, signed if the sender has an identity. shown: of `arrays_of`."""
    message = Shareable()
    message[BODY], message[FRAMES] = sealed(body, frames, signer).encode(), [bytes(f) for f in frames]
    if shown is not None:
        message[ARRAYS] = shown
    return message


def unpack_request(message: Shareable, server: bytes | None) -> tuple[Request, list[bytes]]:
    """Return the request and its frames. Raises WireError, or BadSignature unless the key `server` signed it."""
    request, frames = Request.decode(_bytes(message.get(BODY), "a request")), _frames(message)
    check(request, frames, server)
    return request, frames


def unpack_answer(message: Shareable, sender: bytes | None) -> tuple[Answer, list[bytes]]:
    """Return the answer and its frames. Raises WireError, or BadSignature unless the key `sender` signed it."""
    answer, frames = Answer.decode(_bytes(message.get(BODY), "an answer")), _frames(message)
    check(answer, frames, sender)
    return answer, frames


def refusal(why: str) -> Shareable:
    """Return a reply that says why there is no answer."""
    message = Shareable()
    message[REFUSED] = why
    return message


def failure_of(message: Shareable) -> str | None:
    """Return why a reply carries no answer, or None if it does."""
    why = message.get(REFUSED)
    if why is None and BODY not in message:
        why = f"no answer came, the framework says {message.get_return_code()}"
    return None if why is None else words_of(str(why))


def arrays_of(name: str, tree: Tree) -> Arrays:
    """Return arrays under the name by which they travel."""
    return {name: {key: npy(array) for key, array in tree.items()}}


def read(shown: object, name: str) -> Tree:
    """Return the arrays that came under `name`. Raises WireError for anything else beside or among them."""
    if not isinstance(shown, dict) or list(shown) != [name] or not isinstance(shown[name], dict):
        raise WireError(f"expected the model under {name!r} and nothing else")
    return {str(key): from_npy(str(key), _bytes(data, f"array {key}")) for key, data in shown[name].items()}


def _frames(message: Shareable) -> list[bytes]:
    frames = message.get(FRAMES)
    if not isinstance(frames, list):
        raise WireError(f"expected a list of frames, got {type(frames).__name__}")
    return [_bytes(frame, "a frame") for frame in frames]


def _bytes(value: object, what: str) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise WireError(f"expected {what} as bytes, got {type(value).__name__}")
    return bytes(value)
