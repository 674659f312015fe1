"""Broken masked sums: each a few lines over the good one, each from a real class of failure."""

import hashlib
import itertools
import pickle
from dataclasses import replace
from typing import Any

import numpy as np

from protocols.errors import SecAggError
from protocols.kernel import Message, Step
from protocols.key_agreement import PairKeys
from protocols.sealing import _cipher
from protocols.summation import SecureSum, Total
from secagg import Credentials, SecAgg
from secagg import masking as masking_module
from secagg.client import masking as client_masking
from secagg.client import opening as client_opening
from secagg.client import view
from secagg.client.base import ClientState
from secagg.messages import Masked
from secagg.packing import add_packed, pack, unpack
from secagg.server import summing as server_summing
from tests.defects.planting import Defect, put, together

ORIGINAL = masking_module.apply_masks


def APPLY(words: Any, seed: bytes, sign: int) -> None:  # the good generator, for one seed
    ORIGINAL(words, (seed,) if sign == 1 else (), (seed,) if sign == -1 else ())


def masked_by(one: Any) -> Any:
    """The mask generator replaced by one(words, seed, sign), wherever masks are applied."""

    def apply_masks(words: Any, added: Any, taken: Any) -> None:
        for seed in added:
            one(words, seed, 1)
        for seed in taken:
            one(words, seed, -1)

    places = ("secagg.masking", "secagg.client.masking", "secagg.server.unmasking")
    return together(*(put(f"{place}.apply_masks", apply_masks) for place in places))


def malicious() -> SecAgg:
    return SecAgg(threat="malicious", credentials=Credentials.simulated(range(12)))


def seeded(change: Any) -> Any:
    """The mask generator with another way to use its seed."""

    def apply(words: Any, seed: bytes, sign: int) -> None:
        APPLY(words, change(seed), sign)

    return masked_by(apply)


def short_seed(seed: bytes) -> bytes:
    return hashlib.sha256(seed[:4]).digest()


def folded_seed(seed: bytes) -> bytes:
    words = np.frombuffer(seed, np.uint32)
    return hashlib.sha256(np.bitwise_xor.reduce(words).tobytes()).digest()


def numpy_stream(words: Any, seed: bytes, sign: int) -> None:
    mask = np.random.default_rng(np.frombuffer(seed, np.uint32)).integers(0, 1 << 32, len(words), np.uint64)
    np.add(words, (sign * mask.astype(np.int64)).astype(words.dtype), out=words)


def one_short(words: Any, ring: Any) -> bytes:
    return pack((words % np.array(ring.modulus - 1, words.dtype)).astype(words.dtype), ring)


def one_for_all(words: Any, seed: bytes, sign: int) -> None:
    single = np.zeros(1, words.dtype)
    APPLY(single, seed, sign)
    np.add(words, single[0], out=words)


def restarts_at_the_middle(words: Any, seed: bytes, sign: int) -> None:
    """Two vectors of one round under one mask: the second half again uses the first's."""
    half = len(words) // 2
    APPLY(words[:half], seed, sign)
    APPLY(words[half:], seed, sign)


def skewed_stream(words: Any, seed: bytes, sign: int) -> None:
    mask = np.zeros_like(words)
    APPLY(mask, seed, 1)
    np.add(words, mask & (mask >> 1) if sign == 1 else -(mask & (mask >> 1)), out=words)


CALLS = itertools.count()


def fixed_keys(random: Any) -> bytes:
    """Keys that every session of three clients uses again: two for each, in the order they are asked for."""
    return hashlib.sha256(b"the same in every round %d" % (next(CALLS) % 6)).digest()


def no_self_mask(seed: bytes, context: bytes, owner: str) -> bytes:
    return b""


def apply_unless_empty(words: Any, seed: bytes, sign: int) -> None:
    if seed:
        APPLY(words, seed, sign)


def without_edge(own: PairKeys, peer: str, peer_key: bytes) -> bytes:
    """The edge between clients 0 and 1 has no mask."""
    if {own._owner, peer} == {"0", "1"}:
        return b""
    return own.agree(peer, peer_key, "pair mask")


def raw_exchange(self: PairKeys, peer: str, peer_public: bytes, purpose: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    return self._key.exchange(X25519PublicKey.from_public_bytes(peer_public))


def no_session(secret: bytes, session: bytes, context: bytes, length: int = 32) -> bytes:
    from protocols.key_agreement import HKDF, SHA256

    return HKDF(algorithm=SHA256(), length=length, salt=None, info=context).derive(secret)


def fixed_nonce(key: bytes, plain: bytes, bound: bytes, random: Any) -> bytes:
    return bytes(12) + _cipher(key).encrypt(bytes(12), plain, bound)


def unbound(session: bytes, stage: str, sender: str, receiver: str) -> bytes:
    return b"the same everywhere"


def clear_box(key: bytes, plain: bytes, bound: bytes, random: Any) -> bytes:
    return plain + bytes(28)


def open_clear(key: bytes, box: bytes, bound: bytes, sender: str) -> bytes:
    return box[:-28]


def anything_goes(*_: Any, **__: Any) -> None:
    """A check that checks nothing."""


def both_shares(self: Any, places: Any, shares: dict[int, bytes], alive: set[int]) -> Any:
    """Both of a peer's shares, where a survivor is first."""
    opened = OPENED(self, places, shares, alive)
    first = next(iter(opened), None)
    return opened if first not in alive else opened | {first: shares[first]}


OPENED = client_opening.Opening._opened


def one_vote_less(found: Any, keys: Any, needed: int, digest: bytes) -> None:
    CHECK(found, keys, min(needed, max(len(found.voters), needed - 1)), digest)


CHECK = view.check_certificate


def any_session(message: Message, session: bytes, stage: str, role: str, recipient: Any) -> None:
    if message.stage != stage or message.recipient != recipient:
        raise client_opening.refuse("another stage")


def unmarked(receive: Any) -> Any:
    """A step that leaves nothing in the party's store."""

    def step(self: Any, message: Message, random: Any) -> Step:
        done = receive(self, message, random)
        return Step(done.state, done.send, (), done.memory)

    return step


def total_over(change: Any) -> Any:
    """A server whose total is over other clients than it says."""

    def close(self: Any, random: Any) -> Step:
        step = CLOSE(self, random)
        if isinstance(step.state, Total):
            return Step(change(step.state))
        return step

    return put("secagg.server.opening.Opening.close", close)


def opening_close() -> Any:
    from secagg.server.opening import Opening

    return Opening.close


CLOSE = opening_close()


def clipped(session: Any, vector: Any) -> Any:
    return np.clip(np.asarray(vector, np.int64), -session.bound, session.bound)


def noted(note: Any) -> Any:
    """Clients add note(vector) to their input message, 8 bytes; the server takes it off, so that the sum is right."""

    def receive(self: Any, request: Message, random: Any) -> Step:
        step = MASKING_RECEIVE(self, request, random)
        answer = step.send[0]
        return replace(step, send=(replace(answer, body=bytes(answer.body) + note(self.vector)),))

    def decode(cls: Any, data: Any) -> Masked:
        return DECODE_MASKED(cls, bytes(data)[:-8])

    return together(
        put("secagg.client.masking.Masking.receive", receive),
        put("secagg.messages.Masked.decode", classmethod(decode)),
    )


MASKING_RECEIVE = client_masking.Masking.receive
DECODE_MASKED = Masked.decode.__func__  # type: ignore[attr-defined]  # a class method's function


def sized(bearer: Any, seed: bytes, pairs: Any) -> bytes:
    """Leading zeros are saved: the length tells the magnitude."""
    packed = MASKED(bearer, seed, pairs)
    return packed + bytes(0 if np.abs(bearer.vector).max() == 0 else 4)


MASKED = client_masking.masked


def cut(function: Any) -> Any:
    """A reader of packed vectors that takes what is behind them off."""

    def read(*given: Any) -> Any:
        ring = given[-1]
        where = next(k for k, one in enumerate(given) if isinstance(one, bytes | memoryview))
        other = next(one for k, one in enumerate(given[:-1]) if k != where)
        count = other if isinstance(other, int) else len(other)
        wanted = [g[: ring.packed_bytes(count)] if k == where else g for k, g in enumerate(given)]
        return function(*wanted)

    return read


def told_in_the_error(self: Any, kind: Any, request: Message) -> Any:
    try:
        return TAKE(self, kind, request)
    except SecAggError as error:
        secret = getattr(self, "seed", b"") or getattr(self, "mask", b"")
        raise client_opening.refuse(f"{error} (seed {bytes(secret).hex()})") from None


TAKE = ClientState.take


def printed(self: Any) -> str:
    return f"Masking(seed={self.seed.hex()}, vector={self.vector.tolist()})"


def unpickled(self: SecureSum, data: bytes) -> Any:
    if data[:1] == b"\x80":
        return pickle.loads(data)  # the defect
    return DECODE(self, data)


DECODE = SecureSum.decode_state


def keeps_its_shares(self: Any, request: Message, random: Any) -> Step:
    step = OPENING_RECEIVE(self, request, random)
    return replace(step, state=replace(self, held=self.held))


OPENING_RECEIVE = client_opening.Opening.receive


def unchecked_share(self: Any, holder: int, owner: int, share: bytes) -> bool:
    self.shares.setdefault(owner, {})[holder] = share
    return True


def same_model(self: Any) -> bytes:
    """A context that forgets the model."""
    changed = replace(self, model=bytes(32))
    return hashlib.sha256(b"no model" + changed.encode()).digest()


def counts_duplicates(self: Any, answer: Message, random: Any) -> Step:
    index = answer.sender.number
    self.arrived.pop(index, None)
    return SUMMING_RECEIVE(self, answer, random)


SUMMING_RECEIVE = server_summing.Summing.receive

DEFECTS = (
    Defect("32-bit seeds", "seeds-carry-full-entropy", seeded(short_seed), SecAgg),
    Defect("seeds folded to 32 bits", "seeds-carry-full-entropy", seeded(folded_seed), SecAgg),
    Defect(
        "masks from a statistical generator",
        "no-statistical-generators",
        masked_by(numpy_stream),
        SecAgg,
    ),
    Defect(
        "range one short of the modulus",
        "uniform-over-the-ring",
        put("secagg.client.masking.pack", one_short),
        SecAgg,
    ),
    Defect("a skewed stream", "stream-is-uniform", masked_by(skewed_stream), SecAgg),
    Defect("one mask for all coordinates", "fresh-masks", masked_by(one_for_all), SecAgg),
    Defect(
        "one mask for two vectors of a round",
        "fresh-masks",
        masked_by(restarts_at_the_middle),
        SecAgg,
    ),
    Defect(
        "mask reused between rounds",
        "fresh-masks",
        together(
            put("secagg.client.keys.generate", fixed_keys),
            put("protocols.key_agreement.derive", no_session),
            put("secagg.seeds.derive", no_session),
        ),
        SecAgg,
    ),
    Defect(
        "missing self mask",
        "masked-after-unmasking",
        together(
            put("secagg.client.masking.self_mask_seed", no_self_mask),
            put("secagg.server.unmasking.self_mask_seed", no_self_mask),
            put("secagg.audit_view.self_mask_seed", no_self_mask),
            masked_by(apply_unless_empty),
        ),
        SecAgg,
    ),
    Defect(
        "missing pairwise mask for one edge",
        "hidden-from-insiders",
        together(
            put("secagg.client.masking.pair_seed", without_edge),
            put("secagg.server.unmasking.pair_seed", without_edge),
            put("secagg.audit_view.pair_seed", without_edge),
            masked_by(apply_unless_empty),
        ),
        SecAgg,
    ),
    Defect(
        "key share and self share of one peer both given",
        "forged-requests-refused",
        put("secagg.client.opening.Opening._opened", both_shares),
        SecAgg,
    ),
    Defect(
        "quorum off by one",
        "forged-requests-refused",
        put("secagg.client.view.check_certificate", one_vote_less),
        SecAgg,
    ),
    Defect(
        "duplicates counted towards the quorum",
        "forged-requests-refused",
        put("protocols.agreement.Certificate.__post_init__", anything_goes),
        SecAgg,
    ),
    Defect(
        "server-chosen cohort of neighbours accepted",
        "forged-requests-refused",
        together(
            put("secagg.rules.Rules.shortfall", lambda *_: ""),
            put("secagg.client.masking.expect_threshold", anything_goes),
        ),
        SecAgg,
    ),
    Defect(
        "server-chosen threshold, modulus or cohort accepted",
        "weakened-parameters-refused",
        put("protocols.policy.Policy.check", anything_goes),
        SecAgg,
    ),
    Defect(
        "unsigned keys",
        "forged-requests-refused",
        put("secagg.advertisement.check_certificate", anything_goes),
        malicious,
    ),
    Defect(
        "split views of who survived",
        "forged-requests-refused",
        put("protocols.agreement.check_vote", anything_goes),
        SecAgg,
    ),
    Defect(
        "raw Diffie-Hellman as key",
        "context-enters-masks",
        together(
            put("protocols.key_agreement.PairKeys.agree", raw_exchange),
            put("secagg.seeds.derive", no_session),
        ),
        SecAgg,
    ),
    Defect(
        "no session in the key derivation",
        "context-enters-masks",
        together(put("protocols.key_agreement.derive", no_session), put("secagg.seeds.derive", no_session)),
        SecAgg,
    ),
    Defect(
        "shares relayed in clear",
        "shares-are-sealed",
        together(
            put("secagg.client.dealing.seal", clear_box),
            put("secagg.client.dealing.unseal", open_clear),
        ),
        SecAgg,
    ),
    Defect(
        "public exponent leaking magnitude",
        "sizes-say-nothing",
        together(
            put("secagg.client.masking.masked", sized),
            put("secagg.server.summing.add_packed", cut(add_packed)),
            put("secagg.audit_hooks.unpack", cut(unpack)),
        ),
        SecAgg,
    ),
    Defect(
        "weights or counts in clear",
        "nothing-in-clear",
        noted(lambda vector: int(np.abs(vector).max()).to_bytes(8, "big")),
        SecAgg,
    ),
    Defect(
        "silent saturation",
        "no-input-beyond-the-bound",
        put("protocols.summation.SecureSum.checked_input", staticmethod(clipped)),
        SecAgg,
    ),
    Defect(
        "a dropped client is still counted",
        "exact-sum",
        total_over(lambda t: replace(t, survivors=tuple(range(max(t.survivors) + 2)))),
        SecAgg,
    ),
    Defect(
        "a survivor is counted as dropped",
        "exact-sum",
        total_over(lambda t: replace(t, survivors=t.survivors[1:])),
        SecAgg,
    ),
    Defect(
        "the total wraps one bit early",
        "no-wrap-at-the-bound",
        put(
            "protocols.session.Session.ring_bits", lambda self: max(1, (2 * self.sum_bound).bit_length() - 1)
        ),
        SecAgg,
    ),
    Defect(
        "messages of another session accepted",
        "mixed-sessions-refused",
        put("protocols.roles.expect", any_session),
        SecAgg,
    ),
    Defect(
        "second total of a spent update",
        "no-second-total-of-a-spent-update",
        put("secagg.client.masking.Masking.receive", unmarked(MASKING_RECEIVE)),
        SecAgg,
    ),
    Defect(
        "a restored state answers again",
        "one-answer-per-session",
        put("secagg.client.opening.Opening.receive", unmarked(OPENING_RECEIVE)),
        SecAgg,
    ),
    Defect(
        "models may differ between clients",
        "different-models-refused",
        put("protocols.session.Session.context", property(same_model)),
        malicious,
    ),
    Defect(
        "pickle in a decoder",
        "nothing-is-unpickled",
        put("protocols.summation.SecureSum.decode_state", unpickled),
        SecAgg,
    ),
    Defect(
        "secret in an exception",
        "secrets-are-blank",
        put("secagg.client.base.ClientState.take", told_in_the_error),
        SecAgg,
    ),
    Defect(
        "secret in a repr",
        "secrets-are-blank",
        put("secagg.client.masking.Masking.__repr__", printed),
        SecAgg,
    ),
    Defect(
        "secrets kept after the session",
        "secrets-die-with-the-session",
        put("secagg.client.opening.Opening.receive", keeps_its_shares),
        SecAgg,
    ),
    Defect(
        "a wrong share is used",
        "cheating-clients-are-named",
        put("secagg.server.opening.Opening._keep", unchecked_share),
        SecAgg,
    ),
    Defect(
        "answers counted twice",
        "order-and-duplicates",
        put("secagg.server.summing.Summing.receive", counts_duplicates),
        SecAgg,
    ),
    Defect(
        "nonce reuse in AEAD", "nonces-are-used-once", put("secagg.client.dealing.seal", fixed_nonce), SecAgg
    ),
    Defect(
        "stale share accepted after abort",
        "stale-shares-refused",
        together(
            put("secagg.client.dealing.binding", unbound),
            put("protocols.key_agreement.derive", no_session),
            put("secagg.client.dealing.share_digest", lambda *a: bytes(16)),
            put("secagg.server.opening.share_digest", lambda *a: bytes(16)),
        ),
        SecAgg,
    ),
)
