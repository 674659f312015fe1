"""LightSecAgg (So et al., MLSys 2022), the authors' functions in the package fedml as they are, under audit.

pip install --no-deps fedml; cd examples; secagg audit audit_lightsecagg:factory

The functions are loaded without the package around them (they import numpy and torch). Encoded masks go over private
channels, as the paper has it; a client's mask comes from the operating system.
"""

import importlib.util
import os
from importlib.metadata import distribution
from typing import Any

import numpy as np

from protocols.audit import BlackBox, Wire

STAGES, BOUND, P = ("offline", "input", "recovery"), 127, 2**15 - 19  # P: a prime


def functions() -> Any:
    """fedml.core.mpc.lightsecagg, without the packages that hold it."""
    path = distribution("fedml").locate_file("fedml/core/mpc/lightsecagg.py")
    spec = importlib.util.spec_from_file_location("lightsecagg", str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(count: int) -> np.ndarray:
    """A uniform mask: field elements out of 8 bytes each."""
    words = np.frombuffer(os.urandom(8 * count), "<u8") % np.uint64(P)
    return words.astype(np.int64).reshape(-1, 1)


def vector_in(body: bytes) -> np.ndarray:
    return np.frombuffer(body, "<i8")


def sizes(clients: int) -> tuple[int, int]:
    """How many must stay, and how many may work together: more than half, and one fewer."""
    return clients // 2 + 1, clients // 2


class Client:
    """One user: a mask, its encoding for everybody, and what the others encoded for it."""

    def __init__(self, vector: np.ndarray, clients: int) -> None:
        stay, together = sizes(clients)
        self.vector, self.mask, self.held = vector, drawn(len(vector)), dict[int, np.ndarray]()
        self.encoded = LSA.mask_encoding(len(vector), clients, stay, together, P, self.mask)

    def masked(self) -> bytes:
        finite = {"w": np.mod(self.vector.reshape(-1, 1), P)}
        made: np.ndarray = LSA.model_masking(finite, [len(self.vector)], self.mask, P)["w"]
        return b"M" + made.astype("<i8").tobytes()

    def recovery(self, stayed: np.ndarray) -> bytes:
        held = {0: self.held[int(stayed[0])], **self.held}  # its first entry gives the shape
        summed = LSA.compute_aggregate_encoded_mask(held, P, stayed.tolist())
        return np.array(summed, "<i8").tobytes()


def run(inputs: Any, drop: Any, tamper: Any = None) -> tuple[Any, Any]:
    """One round: the total that came out (None if none did), and everything the server sent and received."""
    wire, n, d = Wire(drop, tamper, once=True), len(inputs), len(inputs[0])
    clients, (stay, _) = [Client(vector, n) for vector in inputs], sizes(n)
    ready = [i for i, _ in wire.trip(STAGES[0], dict.fromkeys(range(n), b""), lambda i, _: b"ready")]
    for i in ready:
        for j in ready:
            clients[j].held[i] = clients[i].encoded[j]
    came = dict(wire.trip(STAGES[1], dict.fromkeys(ready, b""), lambda i, _: clients[i].masked()))
    asked = np.array(sorted(came), "<i8").tobytes()
    trip = wire.trip(STAGES[2], dict.fromkeys(came, asked), lambda i, m: clients[i].recovery(vector_in(m)))
    opened = {i: vector_in(body) for i, body in trip}
    if len(opened) < stay:
        return None, wire.transcript
    chosen = sorted(opened)[:stay]
    points = np.array(chosen) + 1, np.arange(stay) + n + 1
    mask = LSA.LCC_decoding_with_points(np.stack([opened[i] for i in chosen]), *points, P)
    total = np.mod(sum(vector_in(body[1:]) for body in came.values()) - mask.reshape(-1)[:d], P)
    return np.where(total > P // 2, total - P, total), wire.transcript


def elements(message: tuple[str, str, bytes]) -> Any:
    """The masked vector in a client's message: it alone has one byte more than whole elements."""
    return vector_in(message[2][1:]) if message[0] != "server" and len(message[2]) % 8 == 1 else None


def tolerated(clients: int, drop: Any) -> bool:
    return clients - sum(len(who) for who in drop.values()) >= sizes(clients)[0]


def factory() -> BlackBox:
    """What `secagg audit` asks for."""
    pieces: Any = {"elements": elements, "modulus": P, "tolerated": tolerated}
    return BlackBox(run, name="LightSecAgg", stages=STAGES, bound=BOUND, clients=(3, 5), **pieces)


LSA = functions()
