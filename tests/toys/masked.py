"""A foreign masked sum in a page, behind an adapter that gives every piece: Bonawitz et al. (CCS 2017), one round.

Four trips: keys, sealed shares, masked input, unmasking. What draws, expands and agrees is in functions of the module,
so that a test can plant a defect in their place.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.audit import BlackBox, Wire
from secagg.shamir import combine, split_array

STAGES = ("keys", "shares", "input", "unmask")
SELF_MASKS = True
REFUSED, REPLIES = b"no", False
"""What a refusal says, and whether the runtime says so for a client that raises."""


class System:
    """The operating system's randomness, as `split_array` wants it."""

    @staticmethod
    def bytes(count: int) -> bytes:
        return os.urandom(count)


def session_id() -> str | None:
    """What the server tells everybody first."""
    return None


def draw_seed() -> bytes:
    """A client's own mask seed."""
    return os.urandom(32)


def pair_seed(mine: bytes, theirs: str) -> bytes:
    """What two clients agree on."""
    shared = X25519PrivateKey.from_private_bytes(mine).exchange(
        X25519PublicKey.from_public_bytes(bytes.fromhex(theirs))
    )
    return hashlib.sha256(shared).digest()


def expand(seed: bytes, count: int, modulus: int) -> np.ndarray:
    """`count` mask elements of Z_modulus (a power of two)."""
    words = np.frombuffer(hashlib.shake_128(seed).digest(8 * count), "<u8")
    return words % np.uint64(modulus)


def threshold(clients: int) -> int:
    """Shares that open a secret: more than two thirds, so that no two views of who stayed are both opened."""
    return 2 * clients // 3 + 1


class Client:
    """One client's side; a state that refuses raises."""

    def __init__(self, place: int, vector: np.ndarray, clients: int, modulus: int) -> None:
        self.place, self.vector, self.n, self.modulus = place, vector, clients, modulus
        self.key, self.own, self.asked = os.urandom(32), draw_seed(), 0

    def receive(self, stage: str, body: bytes) -> bytes:
        if stage != STAGES[self.asked]:
            raise ValueError(f"expected {STAGES[self.asked]}, got {stage}")
        self.asked += 1
        answer: bytes = getattr(self, stage)(json.loads(body))
        return answer

    def keys(self, asked: Any) -> bytes:
        return X25519PrivateKey.from_private_bytes(self.key).public_key().public_bytes_raw()

    def shares(self, keys: dict[str, str]) -> bytes:
        self.peers = {int(i): pair_seed(self.key, key) for i, key in keys.items() if int(i) != self.place}
        points, t = np.array([j + 1 for j in range(self.n)]), threshold(self.n)
        rows = [split_array(secret, t, points, System) for secret in (self.own, self.key)]  # type: ignore[arg-type]
        self.kept = {self.place: rows[0][self.place].tobytes() + rows[1][self.place].tobytes()}
        return json.dumps(
            {j: self._seal(j, rows[0][j].tobytes() + rows[1][j].tobytes()) for j in self.peers}
        ).encode()

    def _seal(self, peer: int, share: bytes) -> str:
        nonce = os.urandom(12)
        return (nonce + AESGCM(self.peers[peer]).encrypt(nonce, share, bytes([self.place]))).hex()

    def _open(self, peer: int, box: bytes) -> bytes:
        return AESGCM(self.peers[peer]).decrypt(box[:12], box[12:], bytes([peer]))

    def input(self, boxes: dict[str, str]) -> bytes:
        sealed = {int(i): bytes.fromhex(box) for i, box in boxes.items()}
        if len(sealed) + 1 < threshold(self.n):
            raise ValueError("too few dealt shares")
        for i, raw in sealed.items():
            self.kept[i] = self._open(i, raw)
        masked = np.mod(self.vector, self.modulus).astype(np.uint64)
        if SELF_MASKS:
            masked += expand(self.own, len(masked), self.modulus)
        for i in sealed:
            mask = expand(self.peers[i], len(masked), self.modulus)
            masked += mask if self.place < i else np.uint64(self.modulus) - mask
        return b"M" + (masked % np.uint64(self.modulus)).tobytes()

    def unmask(self, stayed: list[int]) -> bytes:
        if len(set(stayed)) < len(stayed) or not {self.place} <= set(stayed) <= set(self.kept):
            raise ValueError("expected clients that it masked with, itself among them, each once")
        if len(stayed) < threshold(self.n):
            raise ValueError("too few stayed")
        own = {i: kept[:32].hex() for i, kept in self.kept.items() if i in stayed}
        return json.dumps({"own": own, "key": self._others(own)}).encode()

    def _others(self, own: Collection[int]) -> dict[int, str]:
        return {i: kept[32:].hex() for i, kept in self.kept.items() if i not in own}


def run(
    inputs: Sequence[np.ndarray],
    drop: Mapping[str, Collection[int]],
    tamper: Any = None,
    modulus: int = 1 << 20,
) -> tuple[np.ndarray | None, list[tuple[str, str, bytes]]]:
    """The server's side."""
    n, wire = len(inputs), Wire(drop, tamper, REFUSED if REPLIES else None, once=True)
    clients = [Client(i, vector, n, modulus) for i, vector in enumerate(inputs)]

    def trip(stage: str, requests: Mapping[int, Any]) -> dict[int, bytes]:
        asked = {i: json.dumps(request).encode() for i, request in requests.items()}
        came = wire.trip(stage, asked, lambda i, body: clients[i].receive(stage, body))
        return {i: body for i, body in came if body != REFUSED}

    keys = {i: key.hex() for i, key in trip("keys", dict.fromkeys(range(n), session_id())).items()}
    boxes = {i: json.loads(box) for i, box in trip("shares", dict.fromkeys(keys, keys)).items()}
    masked = trip("input", {i: {j: boxes[j][str(i)] for j in boxes if j != i} for i in boxes})
    opened = trip("unmask", dict.fromkeys(masked, sorted(masked)))
    if len(opened) < threshold(n):
        return None, wire.transcript
    chosen = sorted(opened)[: threshold(n)]
    total = np.sum([np.frombuffer(v[1:], np.uint64) for v in masked.values()], axis=0)
    for i in boxes:
        kind = "own" if i in masked else "key"
        secret = combine({j + 1: bytes.fromhex(json.loads(opened[j])[kind][str(i)]) for j in chosen}, 32)
        if i in masked and SELF_MASKS:
            total += np.uint64(modulus) - expand(secret, len(total), modulus)
        for j in masked if i not in masked else ():
            mask = expand(pair_seed(secret, keys[j]), len(total), modulus)
            total += mask if i < j else np.uint64(modulus) - mask
    centred = (total % np.uint64(modulus)).astype(np.int64)
    return np.where(centred >= modulus // 2, centred - modulus, centred), wire.transcript


def elements(message: tuple[str, str, bytes]) -> np.ndarray | None:
    """A masked vector is what a client sends behind an M: JSON begins otherwise, and a key is no such length."""
    sender, _, body = message
    vector = sender != "server" and body[:1] == b"M" and len(body) % 8 == 1
    return np.frombuffer(body[1:], "<u8") if vector else None


def shares(message: tuple[str, str, bytes]) -> list[tuple[int, str, bytes]]:
    """What a client opens: of whom, which secret, the share."""
    sender, _, body = message
    found = json.loads(body) if sender != "server" and body[:7] == b'{"own":' else {}
    return [(int(i), kind, bytes.fromhex(s)) for kind, of in found.items() for i, s in of.items()]


def opens(held: Mapping[int, bytes]) -> bytes:
    """The secret that shares are of, by the place of who opened each."""
    return bytes(combine({j + 1: share for j, share in held.items()}, 32))


def stayed(stage: str, message: tuple[str, str, bytes], places: Collection[int]) -> Any:
    """The request for the input or to unmask, as it would be if just these had stayed."""
    sender, recipient, body = message
    if stage == "input":
        kept = {i: box for i, box in json.loads(body).items() if int(i) in places}
        return sender, recipient, json.dumps(kept).encode()
    return (sender, recipient, json.dumps(sorted(places)).encode()) if stage == "unmask" else None


def tolerated(clients: int, drop: Mapping[str, Collection[int]]) -> bool:
    return clients - len({i for who in drop.values() for i in who}) >= threshold(clients)


def box(*pieces: str, **options: Any) -> BlackBox:
    """The adapter, with so many of its pieces."""
    modulus = options.pop("modulus", 1 << 20)
    known = {
        "modulus": modulus,
        "elements": elements,
        "ring": lambda small: lambda inputs, drop, tamper=None: run(inputs, drop, tamper, small),
        "stream": lambda seed, count: expand(seed, count, modulus),
        "seed_bytes": 32,
        "watch": (f"{__name__}:expand",),
        "shares": shares,
        "opens": opens,
        "views": stayed,
    }

    def untouched(inputs: Any, drop: Any) -> Any:
        return run(inputs, drop, None, modulus)

    def touched(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        return run(inputs, drop, tamper, modulus)

    given = {"name": "masked", "stages": STAGES, "bound": 127, "clients": (3, 5), "tolerated": tolerated}
    chosen = {name: known[name] for name in pieces if name != "tamper"}
    return BlackBox(touched if "tamper" in pieces else untouched, **{**given, **chosen, **options})
