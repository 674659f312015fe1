"""PaillierSum: the secure sum by Paillier encryption. What does not belong here: the parties' states, any
arithmetic.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from he import sealing
from he.delivery import DELIVER, Delivering, Receiving
from he.keys import Arrangement, KeyHolder, SharedByClients, Threshold, check_recipients
from he.keys import arrangement as named
from he.paillier import keyring, tags
from he.paillier.cipher import encrypt_knowing, parse
from he.paillier.client import Encrypted, MayOpen, Sent
from he.paillier.holders import HasKey, HasShare
from he.paillier.holders.decryptor import decryptor
from he.paillier.holders.key_holder import KEY_HOLDER
from he.paillier.keyring import Key, Keyring
from he.paillier.keys import DEFAULT_BITS, LEAST_BITS, SecretKey
from he.paillier.knowledge import Knowledge, prove
from he.paillier.knowledge import Statement as Proven
from he.paillier.messages import AGREE, DECRYPT, INPUT, OPEN, PURPOSE, Ask, Contribution, Ticket
from he.paillier.parameters import PaillierParameters, choose, digits_of, least_survivors
from he.paillier.randomisers import Randomisers
from he.paillier.server import Adding, Agreeing, Combining, Gathering, Opening
from he.paillier.statement import protection_of
from he.paillier.threshold import ThresholdKey
from protocols.audit_hooks import Hooks
from protocols.codec import tags as by_tag
from protocols.errors import Misuse
from protocols.identity import Identity, Roster
from protocols.kernel import SERVER, Party, State, Step, client, message
from protocols.policy import Demands, Policy
from protocols.protocol import Stage
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.statement import Protection
from protocols.summation import IntVector, SecureSum

Given = Key | SecretKey


class PaillierSum(SecureSum):
    """Exact sums by Paillier encryption: clients encrypt, the server adds, and who opens is the
    `arrangement`.

    arrangement: `Threshold(t, n)` (the given key's, else 2 of 3), `KeyHolder()` or `SharedByClients()`, or
    their names on the command line, with the dealer that a given key names. key_bits: 3072, or 2048 by
    choice; fewer are refused. keys: this process' keys, one or several shares of one, or the path of a key
    file (`he.paillier.make`, `save`, `from_phe`); left out, all parties are simulated in this process with
    keys made at first use, and the statement says so.
    exponent_bits: see `Randomisers`; fewer than half the modulus' length rest on a further assumption,
    which the statement names. identity, roster: this client's signing key and the verified roster of all
    clients' keys; decryptors and holders then open signed contributions only. Raises Misuse for options
    that do not fit.
    """

    name = "paillier"

    def __init__(
        self,
        arrangement: Arrangement | str | None = None,
        *,
        key_bits: int = DEFAULT_BITS,
        keys: Keyring | Given | tuple[Key, ...] | str | Path | None = None,
        exponent_bits: int | None = None,
        identity: Identity | None = None,
        roster: Roster | None = None,
    ) -> None:
        if not isinstance(key_bits, int) or key_bits < LEAST_BITS or key_bits % 2:
            raise Misuse(f"expected an even key length of {LEAST_BITS} bits or more, got {key_bits!r}")
        self._given = _ring(keys)
        self.arrangement = _arrangement(arrangement, self._given)
        self.key_bits, self.exponent_bits = key_bits, exponent_bits
        if self._given is not None:
            self._given.fits(self.arrangement)
        check_recipients(self.arrangement, roster)
        self._identity, self._roster = identity, roster
        self._stand_ins: dict[str, Identity] = {}
        self._randomisers: Randomisers | None = None

    # -- keys --

    @property
    def keys(self) -> Keyring:
        """The keys of this process; made for simulated parties where none were given."""
        return self._given or keyring.simulated(self.arrangement, self.key_bits)

    @property
    def randomisers(self) -> Randomisers:
        """Where encryptions get their randomisers; `randomisers.prepare(count)` makes some ahead."""
        if self._randomisers is None:
            secret = self.keys.holder.secret if self._shared and self.keys.holder else None
            self._randomisers = Randomisers(self.keys.encryption, self.exponent_bits, secret)
        return self._randomisers

    def prepare(self, session: Session, vectors: int = 1) -> None:
        """Make the randomisers of `vectors` vectors of this session ahead, on all cores."""
        self.check(session)
        self.randomisers.prepare(vectors * self._parameters(session).packing.plaintexts(session.dimension))

    @property
    def _shared(self) -> bool:
        return isinstance(self.arrangement, SharedByClients)

    def _signers(self, session: Session) -> bytes:
        """The clients' signing keys in roster order; empty where keys were given but no roster: nobody
        signs then.
        """
        if self._roster is not None:
            return b"".join(self._roster.member(name).key for name in session.roster)
        if self._given is not None:
            return b""
        return b"".join(self._stand_in(name).public for name in session.roster)

    def _stand_in(self, name: str) -> Identity:
        if name not in self._stand_ins:
            self._stand_ins[name] = Identity.generate(name)
        return self._stand_ins[name]

    def _signer(self, name: str) -> Identity | None:
        if self._roster is None and self._given is None:
            return self._stand_in(name)
        if self._roster is not None and (
            self._identity is None or self._identity.public != self._roster.member(name).key
        ):
            raise Misuse(
                f"expected the identity of {name!r} as the roster has it: PaillierSum(identity=..., roster=...)"
            )
        return self._identity if self._roster is not None else None

    # -- public facts --

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        return by_tag(
            Encrypted, Sent, MayOpen, Receiving, HasKey, HasShare,
            Adding, Agreeing, Opening, Delivering, Gathering, Combining,
        )  # fmt: skip

    def parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> PaillierParameters:
        bits = self.randomisers.exponent_bits
        assert bits is not None
        return choose(self.arrangement, self.keys, bits, clients, dimension, bound, modulus)

    def check(self, session: Session) -> None:
        super().check(session)
        mine = self.parameters(session.clients, session.dimension, session.bound, int(session.modulus))
        if session.parameters != mine.encode():
            raise Misuse(
                "the session's parameters are not those that follow from this party's key, arrangement and options: "
                "give every party the same ones (PaillierSum(arrangement, keys=...))"
            )

    @property
    def audit_hooks(self) -> Hooks:
        from he.paillier.audit_hooks import make

        return make(self)

    def stages(self, session: Session) -> tuple[Stage, ...]:
        asked = Stage(INPUT, counts=True)
        if isinstance(self.arrangement, Threshold):
            return (asked, Stage(DECRYPT, "decryptor"))
        if self._shared:
            return (asked, Stage(AGREE), Stage(OPEN))
        opened = Stage(OPEN, "key-holder")
        return (asked, opened, DELIVER) if self.recipients else (asked, opened)

    @property
    def recipients(self) -> tuple[str, ...]:
        return self.arrangement.clients if isinstance(self.arrangement, KeyHolder) else ()

    @property
    def clients_learn_sum(self) -> bool:
        return self._shared or bool(self.recipients)

    def helpers(self, session: Session) -> tuple[Party, ...]:
        if isinstance(self.arrangement, Threshold):
            return tuple(decryptor(number) for number in range(self.arrangement.n))
        return () if self._shared else (KEY_HOLDER,)

    def demands(self, session: Session) -> Demands:
        self.check(session)
        threshold = self.arrangement if isinstance(self.arrangement, Threshold) else None
        return Demands(
            cohort=session.clients,
            survivors=least_survivors(session),
            ring_bits=(int(session.modulus) - 1).bit_length() if session.modulus else session.ring_bits(),
            threat="malicious" if self._roster is not None and not self._shared else "semi-honest",
            threshold=threshold.t if threshold else None,
            degree=threshold.n if threshold else None,
            signed_roster=self._roster is not None,
            simulated=session.simulated,
        )

    def protection(self, session: Session) -> Protection:
        demands = self.demands(session)
        simulated = self._given is None or (self._given.opens and not self._shared)
        return protection_of(self.arrangement, session, self.keys, self.randomisers, demands, simulated)

    # -- parties --

    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step:
        signers, public = self._signers(session), self.keys.public
        body = Ask().encode()
        asks = tuple(message(session.context, INPUT, SERVER, client(i), body) for i in range(session.clients))
        if isinstance(public, ThresholdKey):
            return Step(Gathering(session, public, signers), asks)
        return Step(Adding(session, public.public, signers, not self._shared), asks)

    def _client(
        self,
        session: Session,
        index: int,
        vector: IntVector,
        random: SecureRandom,
        policy: Policy,
        update: bytes,
        memory: bytes | None,
    ) -> Step:
        parameters, n = self._parameters(session), int(self.keys.encryption.n)
        plaintexts = parameters.packing.pack(digits_of(vector, session, parameters.wrap_bits, random))
        tagging = self._tag(session, index, random)
        if tagging.seed:
            plaintexts = tags.add_tags(plaintexts, tagging.seed, n)
        ciphertexts, exponents = encrypt_knowing(plaintexts, self.randomisers, random)
        unsigned = Ticket(tagging.public, hashlib.sha256(ciphertexts).digest(), b"")
        signer = self._signer(session.roster[index])
        signature = signer.sign(PURPOSE, unsigned.signed(session, index)) if signer else b""
        proof = self._proof(session, index, ciphertexts, plaintexts, exponents, random)
        contribution = Contribution(ciphertexts, Ticket(tagging.public, unsigned.digest, signature), proof)
        key = self._shared_key() if self._shared else None
        least, box_key = max(policy.min_survivors, least_survivors(session)), b""
        if session.roster[index] in self.recipients:
            box_key = tagging.box_key
        signers = self._signers(session)
        return Step(Encrypted(session, index, contribution, update, key, signers, least, box_key))

    def _proof(
        self,
        session: Session,
        index: int,
        ciphertexts: bytes,
        plaintexts: list[int],
        exponents: list[bytes],
        random: SecureRandom,
    ) -> Knowledge | None:
        """Return the proof that this client knows what it encrypted, which decryptors insist on."""
        if not isinstance(self.keys.public, ThresholdKey):
            return None
        public, bits = self.keys.encryption, self._parameters(session).exponent_bits
        values = parse(ciphertexts, len(plaintexts), public)
        return prove(Proven(public, session.context, index, values, bits), plaintexts, exponents, random)

    def _tag(self, session: Session, index: int, random: SecureRandom) -> tags.Tagging:
        """Return what this client's tags are made of; decryptors add by themselves and need none."""
        public = self.keys.public
        if isinstance(public, ThresholdKey):
            return tags.Tagging(b"", b"", b"")
        if self._shared:
            seed = tags.seed_in_group(self._shared_key().sealing, session.context, index)
            return tags.Tagging(b"", seed, b"")
        return tags.tag_for_holder(random.bytes(sealing.KEY_BYTES), public.sealing, session.context, index)

    def _shared_key(self) -> keyring.HolderKey:
        if self.keys.holder is None:
            raise Misuse(
                "SharedByClients: every client needs the shared key, this one has its public part only"
            )
        return self.keys.holder

    def _helper(
        self, session: Session, party: Party, random: SecureRandom, policy: Policy, memory: bytes | None
    ) -> Step:
        signers, least = self._signers(session), policy.min_survivors
        if isinstance(self.arrangement, KeyHolder):
            if self.keys.holder is None:
                raise Misuse("the key holder needs the secret key, this process has its public part only")
            return Step(HasKey(session, self.keys.holder, signers, least))
        for share in self.keys.shares:
            if decryptor(share.index - 1) == party:
                return Step(HasShare(session, share, signers, least))
        raise Misuse(f"{party} needs share {party.number + 1} of the key, which this process does not hold")

    @staticmethod
    def _parameters(session: Session) -> PaillierParameters:
        return PaillierParameters.decode(session.parameters)


def _arrangement(given: Arrangement | str | None, ring: Keyring | None) -> Arrangement:
    """Return the arrangement; where none, or only its name, is given, a threshold key says the rest of its own."""
    found = named(given) if isinstance(given, str) else given
    if found is not None and not isinstance(found, Arrangement):
        raise Misuse(f"expected Threshold, KeyHolder or SharedByClients, got {type(found).__name__}")
    if ring is not None and isinstance(ring.public, ThresholdKey) and not isinstance(given, Threshold):
        key = ring.public
        dealt = Threshold(key.t, key.holders, key.dealer)
        if found is None or found == replace(dealt, dealer=Threshold.dealer):
            return dealt
    return found or Threshold()


def _ring(keys: Keyring | Given | tuple[Key, ...] | str | Path | None) -> Keyring | None:
    """Return the keys of this process, None if none were given. Raises Misuse for what is no key."""
    if keys is None or isinstance(keys, Keyring):
        return keys
    if isinstance(keys, str | Path):
        return Keyring.of(keyring.load(keys))
    if isinstance(keys, tuple):
        return Keyring.of(*keys)
    if isinstance(keys, SecretKey):
        return Keyring.of(keyring.HolderKey.of(keys))
    return Keyring.of(keys)
