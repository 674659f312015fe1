"""Secrets: printed nowhere, gone after the session; and a statement that says what ran."""

import contextlib
import gc
import io
import logging
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.ciphers import aead
from numpy.typing import NDArray

from protocols.audit.generators import living
from protocols.audit.prop import Finding, NotVisible, promised
from protocols.audit.repeatable import ReplayRandom
from protocols.audit.stepping import answer_to, drive
from protocols.errors import Misuse, SecAggError
from protocols.kernel import SERVER
from protocols.policy import THREATS
from protocols.randomness import SystemRandom
from protocols.statement import Statement

CANARY = 12345678987


def _canaries() -> list[Any]:
    return [np.array([CANARY + i, 7, -7], np.int64) for i in range(5)]


class _Wide:
    """A subject whose bound holds the canaries."""

    def __init__(self, subject: Any) -> None:
        self.protocol, self.bound = subject.protocol, 1 << 40


def _forms(secret: bytes) -> tuple[str, ...]:
    return secret.hex(), repr(secret)[2:-1], str(int.from_bytes(secret, "big")), str(list(secret))[1:-1]


@promised("semi-honest", "secret hygiene", most=1)
def secrets_are_blank(subject: Any, data: Any) -> None:
    """No repr, log line, error or output holds a secret or an input.

    reprs, errors, logs and standard output of a whole session hold no secret that was drawn, and no input.
    """
    random = ReplayRandom(1)
    out, log = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    texts: list[tuple[str, str]] = []
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            driven = drive(_Wide(subject), _canaries(), random=random)
            for stage in driven.stages:
                for request in stage.requests:
                    saved = driven.before[stage.name][request.recipient]
                    state = subject.protocol.decode_state(saved)
                    texts.append((f"repr of {request.recipient} at {stage.name}", repr(state)))
                    step, _ = answer_to(subject, saved, request)
                    texts.append((f"repr of its step at {stage.name}", repr(step)))
                    _, error = answer_to(subject, saved, stage.requests[0])
                    texts.append((f"error of {request.recipient} at {stage.name}", f"{error!r} {error}"))
                server = subject.protocol.decode_state(driven.server_before[stage.name])
                texts.append((f"repr of the server at {stage.name}", repr(server)))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    texts += [("a log line", log.getvalue()), ("standard output", out.getvalue())]
    public = {driven.session.nonce}
    secrets = [*(s for s in random.given if s not in public), *subject.as_bytes(_canaries())]
    for where, text in texts:
        for secret in secrets:
            if any(form in text for form in _forms(secret)):
                raise Finding(f"a secret is printed: {where}")
        if str(CANARY) in text:
            raise Finding(f"a client's input is printed: {where}")


@promised("semi-honest", "forward secrecy", most=1)
def secrets_die_with_the_session(subject: Any, data: Any) -> None:
    """The states that parties end with hold no secret of the session and no single input.

    The last states of all parties but the holder of the sum hold no secret that was drawn, and no single input.
    """
    random = ReplayRandom(2)
    vectors = _canaries()
    driven = drive(_Wide(subject), vectors, random=random)
    secrets = [*random.given, *_held(subject, driven)]
    for party, state in driven.last.items():
        encoded = subject.protocol.encode_state(state)
        where = f"outlives the session in the state of {party} ({type(state).__name__})"
        if any(secret in encoded and secret != driven.session.nonce for secret in secrets):
            raise Finding(f"a secret {where}")
        orders = (int(vector[0]).to_bytes(8, order) for vector in vectors for order in ("big", "little"))
        values = [*orders, *subject.as_bytes(vectors)]
        if party != SERVER and any(value in encoded for value in values):
            raise Finding(f"an input {where}")


@promised("semi-honest", "state outside the party's store", most=1)
def nothing_lingers_in_memory(subject: Any, data: Any) -> None:
    """After the session no live object of the process refers to a secret that was drawn, or to an input.

    After a session no object of this process that the collector knows (module globals, caches, closures) refers to
    a secret that was drawn, or to an input. Outside the process, and in freed memory, nothing is looked for.
    """
    # what an earlier audit left behind is not this session's
    seed = int.from_bytes(SystemRandom().bytes(4), "big")
    random, canary = ReplayRandom(seed), (1 << 38) + seed
    vectors = [np.array([canary, i], np.int64) for i in range(5)]
    played = subject.play(vectors, {}, bound=1 << 40, rng=random)
    public = {played.session.nonce} if played.session is not None else set()
    secrets = {*random.given, *subject.as_bytes(vectors)} - public
    del played, vectors
    subject.playing = None  # the audit's own note of the inputs
    random.given.clear()
    gc.unfreeze()  # what a program set aside is collected, too
    gc.collect()
    for item in _alive(secrets):
        if isinstance(item, bytes | bytearray) and len(item) <= 64 and bytes(item) in secrets:
            raise Finding(f"a secret of {len(item)} bytes is still held after the session{_holder(item)}")
        like = isinstance(item, np.ndarray) and item.dtype == np.int64 and item.shape == (2,)
        if like and item[0] == canary:
            raise Finding(f"an input is still held after the session{_holder(item)}")


def _alive(apart_from: Any) -> Iterator[bytes | bytearray | NDArray[Any]]:
    """Byte strings and arrays that the collector's objects refer to. It does not know tuples and dicts of plain values:
    these are entered. Sorted out by type: asking a proxy or a lazy name for more may run its code.
    """
    found = gc.get_referents(*(o for o in living() if o is not apart_from))
    while found:
        kinds = set(map(type, found))
        held = {kind for kind in kinds if issubclass(kind, bytes | bytearray | np.ndarray)}
        yield from (o for o in found if type(o) in held)
        entered = {kind for kind in kinds if issubclass(kind, tuple | dict)}
        found = gc.get_referents(*(o for o in found if type(o) in entered and not gc.is_tracked(o)))


def _holder(item: Any) -> str:
    """The module and name that lead to it, for the story."""
    holders = {id(held) for held in gc.get_referrers(item)}
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            # asking a lazy name for more may warn
            inside = value if type(value) in (list, tuple, set) else ()
            if id(value) in holders or any(id(one) in holders for one in inside):
                return f"\n  in {module.__name__}.{name}"
    return ""


@promised("semi-honest", "key confinement", most=1)
def secrets_stay_with_their_owner(subject: Any, data: Any) -> None:
    """No message carries what a party's states hold as secret.

    No message carries what its sender's states keep out of their repr, before the protocol opens it.
    """
    driven = drive(_Wide(subject), _canaries())
    held = _hidden_by_party(subject, driven)
    for m in driven.messages:
        for secret in held.get(m.sender, []):
            if secret in bytes(m.body):
                raise Finding(
                    f"a secret of {m.sender} is in its message to {m.recipient}\n  at {m.stage}, {len(secret)} bytes"
                )


def _held(subject: Any, driven: Any) -> list[bytes]:
    """Byte strings that clients' earlier states keep out of their repr: those are their secrets."""
    by_party = _hidden_by_party(subject, driven).items()
    return [secret for party, found in by_party if party.role == "client" for secret in found]


def _hidden_by_party(subject: Any, driven: Any) -> dict[Any, list[bytes]]:
    held: dict[Any, list[bytes]] = {}
    for saved in driven.before.values():
        for party, encoded in saved.items():
            state = subject.protocol.decode_state(encoded)
            held.setdefault(party, []).extend(hidden(state, subject.protocol.audit_hooks.sent))
    return held


def hidden(record: Any, sent: tuple[type, ...]) -> Iterator[bytes]:
    """The keys and seeds (16 to 256 bytes) that a record, or one inside it that is not meant for the wire, keeps
    out of its repr, by themselves or by party.
    """
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, sent):
            continue
        if is_dataclass(value):
            yield from hidden(value, sent)
        elif not item.repr:
            each = value.values() if isinstance(value, dict) else (value,)
            yield from (one for one in each if isinstance(one, bytes) and 16 <= len(one) <= 256)


@promised("semi-honest", "nonce misuse (RFC 5116, section 3.1)", most=1, pieces=("",))
def nonces_are_used_once(subject: Any, data: Any) -> None:
    """No nonce of authenticated encryption comes twice under one key.

    Every (key, nonce) of authenticated encryption is used once, over two sessions of the same parties.
    """
    used: dict[tuple[bytes, bytes], int] = {}
    modules = [m for m in list(sys.modules.values()) if m is not None]
    with contextlib.ExitStack() as stack:
        for name in ("AESGCM", "ChaCha20Poly1305"):
            original = getattr(aead, name)
            holders = [m for m in modules if vars(m).get(name) is original]
            for module in holders:
                stack.enter_context(patch.object(module, name, _watching(original, used)))
        n = min(5, subject.clients[1])
        stores = subject.stores(n) if subject.level == "white" else None
        for number in (1, 2):
            updates = {i: bytes([number, i]) * 16 for i in range(n)}
            subject.play(_small(subject.bound)[:n], {}, stores=stores, updates=updates, round=number)
    if not used:
        raise NotVisible("seal with AESGCM or ChaCha20Poly1305 of `cryptography`: no other nonces are seen")
    if max(used.values()) > 1:
        raise Finding(
            f"a nonce is used {max(used.values())} times under one key: what was sealed with it can be read"
        )


def _small(bound: int) -> list[Any]:
    return [np.array([i, -i], np.int64) % (bound + 1) for i in range(5)]


def _watching(original: Any, used: dict[tuple[bytes, bytes], int]) -> Any:
    class WatchedCipher:
        """The cipher, counting how often a nonce is used under a key."""

        def __init__(self, key: bytes) -> None:
            self._key, self._cipher = bytes(key), original(key)

        def encrypt(self, nonce: bytes, plain: bytes, bound: bytes | None) -> Any:
            pair = (self._key, bytes(nonce))
            used[pair] = used.get(pair, 0) + 1
            return self._cipher.encrypt(nonce, plain, bound)

        def decrypt(self, nonce: bytes, box: bytes, bound: bytes | None) -> Any:
            return self._cipher.decrypt(nonce, box, bound)

    return WatchedCipher


@promised("none", "declared leakage", most=1)
def statement_is_true(subject: Any, data: Any) -> None:
    """What the statement says is what the session asks clients to accept, and its threat model that of every cohort.

    The statement's threat model is the session's, it names what is not protected, and it survives its JSON. Cohorts of
    3 to 24 clients, whose size a server picks, have sessions of one model, or none.
    """
    protocol = subject.protocol
    found: dict[str, int] = {}
    for clients in range(3, 25):
        with contextlib.suppress(SecAggError):  # impossible, or more than a signed roster holds
            found[protocol.demands(subject.session_of(clients, 2, 9)).threat] = clients
    if len(found) > 1:
        said = "; ".join(f"{threat} for {clients}" for threat, clients in found.items())
        raise Finding(f"the threat model follows from the number of clients, which a server picks: {said}")
    session = subject.session_of(5, 2, 9)
    protection, demands = protocol.protection(session), protocol.demands(session)
    if protection.threat != demands.threat or protection.threat not in THREATS:
        raise Finding(
            f"the statement says {protection.threat}, the session asks clients to accept {demands.threat}"
        )
    if protection.threat != "none" and not (
        protection.assumptions and protection.limits and protection.learns
    ):
        raise Finding("the statement names no assumption, no limit, or nobody who learns anything")
    statement = Statement((), protection)
    try:
        same = Statement.from_json(statement.to_json())
    except Misuse as error:
        raise Finding(f"the statement does not survive its JSON: {error}") from error
    if same.digest() != statement.digest():
        raise Finding("the statement does not survive its JSON")
