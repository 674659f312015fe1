"""PaillierSum: the secure sum by Paillier encryption. What does not belong here: the parties' states, any
arithmetic.
"""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

from he.arrangements import Arrangement, KeyHolder, Threshold
from he.arrangements import arrangement as named
from he.paillier import keyring
from he.paillier.cipher import encrypt_knowing, parse
from he.paillier.decryptors import CombinesParts, GathersDecryptorVotes, GathersInputs, HoldsShare, decryptor
from he.paillier.keyring import Key, Keyring
from he.paillier.keys import DEFAULT_BITS, LEAST_BITS, SecretKey
from he.paillier.knowledge import KnownPlaintexts, prove
from he.paillier.messages import DECRYPT, PURPOSE, Ticket
from he.paillier.parameters import PaillierParameters, choose, digits_of, scheme
from he.paillier.randomisers import Randomisers
from he.paillier.threshold import ThresholdKey
from he.paillier.whole_key import PaillierAccumulator, PaillierGroupKey, PaillierHeldKey, Tagging
from he.roles.messages import AGREE, INPUT, EncryptedInput
from he.roles.parties import HasCiphertexts, HoldsKey
from he.roles.statement import SchemeFacts, protection_of
from he.roles.sum import HomomorphicSum
from protocols.audit_hooks import Hooks
from protocols.codec import tags
from protocols.errors import Misuse
from protocols.identity import Identity, Roster
from protocols.kernel import Party, State, Step, client
from protocols.key_agreement import KEY_BYTES
from protocols.policy import Policy
from protocols.protocol import ClientStart, Stage
from protocols.randomness import SecureRandom
from protocols.roles import Ask, requests
from protocols.session import Session
from protocols.statement import Protection
from protocols.summation import IntVector

Given = Key | SecretKey


class PaillierSum(HomomorphicSum):
    """An exact secure sum by Paillier encryption (Paillier, EUROCRYPT 1999; threshold keys: Damgard and Jurik, PKC
    2001): clients encrypt, the server adds, and the `arrangement` opens.

    - arrangement: who opens: `Threshold(t, n)`, `KeyHolder()` or `SharedByClients()`, or their names on the command
      line (default: None, the given key's, else 3 of 4).
    - key_bits: of the modulus, even, 2048 or more (default: 3072).
    - keys: this process' key, several shares of one key, or the path of a key file (`he.paillier.make`, `save`,
      `from_phe`). Without keys all parties are simulated in this process, with keys made at first use (default:
      None).
    - exponent_bits: of a randomiser's secret exponent, >= 256; below half the modulus' length they rest on a
      further assumption, which the statement names (default: None, half the modulus' length, or the whole and 128
      for a foreign key).
    - min_survivors: fewest contributions that are ever opened, >= 2 (default: None, more than half of the clients).
    - identity: this client's signing key, beside `roster` (default: None).
    - roster: the verified roster of all clients' keys; only signed contributions are then opened (default: None).

    Raises Misuse for options that do not fit each other, StoreError for a key file that cannot be read, and
    CapacityError, when a session is made, for a sum that the modulus does not carry.

        outcome = simulate(PaillierSum(KeyHolder(), key_bits=2048), {"a": [1, 2], "b": [3, 4], "c": [5, 6]})
        outcome.total   # array([ 9, 12])
    """

    name = "paillier"

    def __init__(
        self,
        arrangement: Arrangement | str | None = None,
        *,
        key_bits: int = DEFAULT_BITS,
        keys: Keyring | Given | tuple[Key, ...] | str | Path | None = None,
        exponent_bits: int | None = None,
        min_survivors: int | None = None,
        identity: Identity | None = None,
        roster: Roster | None = None,
    ) -> None:
        if keys is None and (not isinstance(key_bits, int) or key_bits < LEAST_BITS or key_bits % 2):
            raise Misuse(f"expected an even key length of {LEAST_BITS} bits or more, got {key_bits!r}")
        self._given, self._simulated = _ring(keys), False
        super().__init__(_arrangement(arrangement, self._given), min_survivors, identity, roster)
        self.key_bits, self.exponent_bits = key_bits, exponent_bits
        if self._given is not None:
            self._given.fits(self.arrangement)
            self.key_bits = self._given.encryption.bits  # what a resumed run is held to
        self._stand_ins: dict[str, Identity] = {}
        self._randomisers: Randomisers | None = None

    # -- keys --

    @property
    def keys(self) -> Keyring:
        """The keys of this process; made for simulated parties where none were given."""
        return self._given or keyring.simulated(self.arrangement, self.key_bits)

    def shared_keys(self) -> Self:
        """Return the same sum with its simulated keys made, for several processes of one simulation."""
        made = copy.copy(self)
        made._given, made._simulated = self.keys, self._simulated or self._given is None
        return made

    @property
    def randomisers(self) -> Randomisers:
        """Where encryptions get their randomisers; `randomisers.prepare(count)` makes some ahead."""
        if self._randomisers is None:
            secret = self.keys.holder.secret if self.shared and self.keys.holder else None
            self._randomisers = Randomisers(self.keys.encryption, self.exponent_bits, secret)
        return self._randomisers

    def prepare(self, session: Session, vectors: int = 1) -> None:
        """Make the randomisers of `vectors` vectors of this session ahead, on all cores."""
        self.check(session)
        self.randomisers.prepare(vectors * scheme(session).packing.plaintexts(session.dimension))

    def _signers(self, session: Session) -> bytes:
        """Return the clients' signing keys; those of stand-ins where all parties are simulated."""
        if self._roster is None and self._given is None:
            return b"".join(self._stand_in(name).public for name in session.roster)
        return super()._signers(session)

    def _stand_in(self, name: str) -> Identity:
        if name not in self._stand_ins:
            self._stand_ins[name] = Identity.generate(name)
        return self._stand_ins[name]

    def _signer(self, name: str, role: str) -> Identity | None:
        if self._roster is None and self._given is None:
            return self._stand_in(name)
        return super()._signer(name, role)

    # -- public facts --

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        decrypting = tags(HoldsShare, GathersInputs, GathersDecryptorVotes, CombinesParts)
        return {**super().kinds, **decrypting}

    def scheme_parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> PaillierParameters:
        bits = self.randomisers.exponent_bits
        assert bits is not None
        return choose(self.arrangement, self.keys, bits, clients, dimension, bound, modulus)

    @property
    def audit_hooks(self) -> Hooks:
        from he.paillier.audit_hooks import make

        return make(lambda: self.keys.encryption, bool(self.recipients), self.min_survivors, self._signer)

    def stages(self, session: Session) -> tuple[Stage, ...]:
        if isinstance(self.arrangement, Threshold):
            agreeing = Stage(AGREE, "decryptor", needed=self.arrangement.quorum)
            return (
                Stage(INPUT, counts=True),
                agreeing,
                Stage(DECRYPT, "decryptor", needed=self.arrangement.t),
            )
        return super().stages(session)

    def helpers(self, session: Session) -> tuple[Party, ...]:
        if isinstance(self.arrangement, Threshold):
            return tuple(decryptor(number) for number in range(self.arrangement.n))
        return super().helpers(session)

    def protection(self, session: Session) -> Protection:
        demands = self.demands(session)
        simulated = self._simulated or self._given is None or (self._given.opens and not self.shared)
        facts = SchemeFacts(
            f"Paillier encryption with {self.keys.encryption.bits}-bit keys",
            (self.randomisers.assumption,),
            "it opens only sums whose random tags (64 reserved bits and more) are what the clients agreed with it",
            (),
            {
                "key_bits": self.keys.encryption.bits,
                "exponent_bits": self.randomisers.exponent_bits,
                "key": self.keys.digest.hex(),
            },
        )
        return protection_of(self.arrangement, facts, demands, simulated)

    # -- parties --

    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step:
        signers, public = self._signers(session), self.keys.public
        if isinstance(public, ThresholdKey):
            everyone = {client(i): Ask() for i in range(session.clients)}
            return Step(GathersInputs(session, public, signers), requests(session, INPUT, everyone))
        return self.asks_for_input(session, PaillierAccumulator(public.public, signers, not self.shared))

    def _client(self, start: ClientStart[IntVector]) -> Step:
        session = start.session
        tagging = self._tag(session, start.index, start.random)
        sent = self._encrypted(start, tagging)
        key = PaillierGroupKey(self._shared_key(), self._signers(session)) if self.shared else None
        state = HasCiphertexts(session, start.index, sent, start.update, key, tagging.box_key)
        return Step(state)

    def _encrypted(self, start: ClientStart[IntVector], tagging: Tagging) -> EncryptedInput:
        """Return a client's contribution; decryptors insist on its proof that it knows what it encrypted."""
        session, index, random, public = start.session, start.index, start.random, self.keys.encryption
        parameters, knowledge = scheme(session), None
        plaintexts = parameters.packing.pack(digits_of(start.vector, session, parameters.wrap_bits, random))
        plaintexts = tagging.added(plaintexts, int(public.n))
        ciphertexts, exponents = encrypt_knowing(plaintexts, self.randomisers, random)
        if isinstance(self.keys.public, ThresholdKey):
            values = parse(ciphertexts, len(plaintexts), public)
            known = KnownPlaintexts(public, session.context, index, values, parameters.exponent_bits)
            knowledge = prove(known, plaintexts, exponents, random)
        unsigned = Ticket(tagging.public, hashlib.sha256(ciphertexts).digest(), b"", knowledge)
        signer = self._signer(session.roster[index], "client")
        signature = signer.sign(PURPOSE, unsigned.signed(session, index)) if signer else b""
        return EncryptedInput(ciphertexts, replace(unsigned, signature=signature).encode())

    def _tag(self, session: Session, index: int, random: SecureRandom) -> Tagging:
        """Return what this client's tags are made of; decryptors add by themselves and need none."""
        public = self.keys.public
        if isinstance(public, ThresholdKey):
            return Tagging()
        if self.shared:
            return Tagging.in_group(self._shared_key().sealing, session.context, index)
        return Tagging.with_holder(random.bytes(KEY_BYTES), public.sealing, session.context, index)

    def _shared_key(self) -> keyring.HolderKey:
        if self.keys.holder is None:
            raise Misuse(
                "SharedByClients: every client needs the shared key, this one has its public part only"
            )
        return self.keys.holder

    def _helper(
        self, session: Session, party: Party, random: SecureRandom, policy: Policy, memory: bytes | None
    ) -> Step:
        signers = self._signers(session)
        if isinstance(self.arrangement, KeyHolder):
            if self.keys.holder is None:
                raise Misuse("the key holder needs the secret key, this process has its public part only")
            return Step(HoldsKey(session, PaillierHeldKey(self.keys.holder, signers)))
        for share in self.keys.shares:
            if decryptor(share.index - 1) == party:
                return Step(HoldsShare(session, share, signers))
        raise Misuse(f"{party} needs share {party.number + 1} of the key, which this process does not hold")


def _arrangement(given: Arrangement | str | None, ring: Keyring | None) -> Arrangement:
    """Return the arrangement; where none, or only its name, is given, a threshold key says the rest of its own."""
    found = named(given) if isinstance(given, str) else given
    if found is not None and not isinstance(found, Arrangement):
        raise Misuse(f"expected Threshold, KeyHolder or SharedByClients, got {type(found).__name__}")
    if ring is not None and isinstance(ring.public, ThresholdKey) and not isinstance(given, Threshold):
        key = ring.public
        if found is None:
            return Threshold(key.t, key.holders, key.dealer)
        if isinstance(found, Threshold):  # the command line names no dealer
            return replace(found, dealer=key.dealer)
    return found or Threshold()


def _ring(keys: Keyring | Given | tuple[Key, ...] | str | Path | None) -> Keyring | None:
    """Return the keys of this process, None if none were given. Raises Misuse for what is no key."""
    if isinstance(keys, str | Path):
        keys = keyring.load(keys)
    if isinstance(keys, SecretKey):
        keys = keyring.HolderKey.of(keys)
    if keys is None or isinstance(keys, Keyring):
        return keys
    return Keyring.of(*keys) if isinstance(keys, tuple) else Keyring.of(keys)
