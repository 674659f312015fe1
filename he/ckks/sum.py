"""CKKSSum: exact sums of integer vectors under SEAL's CKKS, opened by a key holder or by clients that share
a key.

What does not belong here: the parties' states (client, holder, server), parameters, ciphertexts.
"""

from collections.abc import Mapping
from pathlib import Path

from he.arrangements import Arrangement, KeyHolder, SharedByClients
from he.arrangements import arrangement as named
from he.ckks.ciphertexts import Adder
from he.ckks.joining import AwaitsHolderKeys, GathersJoins, HasJoined, MadeKeys, MayJoin, OwnInput, published
from he.ckks.keys import SharedKey
from he.ckks.messages import JOIN, KEY, Join
from he.ckks.parameters import FAILURE_BITS, TABLE_128, CKKSParameters, choose, scheme
from he.ckks.whole_key import CKKSAccumulator, CKKSGroupKey, Secrets
from he.roles.messages import HOLDER
from he.roles.parties import HasCiphertexts
from he.roles.statement import SchemeFacts, protection_of
from he.roles.sum import HomomorphicSum
from protocols.audit_hooks import Hooks
from protocols.codec import tags
from protocols.errors import Misuse
from protocols.identity import Identity, Roster
from protocols.kernel import Party, State, Step, client
from protocols.key_agreement import public_key
from protocols.policy import Policy
from protocols.protocol import ClientStart, Stage
from protocols.randomness import SecureRandom
from protocols.roles import Ask, requests
from protocols.session import Session
from protocols.statement import Protection
from protocols.summation import IntVector, representatives


class CKKSSum(HomomorphicSum):
    """A secure sum by CKKS with coefficient packing (Cheon et al., ASIACRYPT 2017), through SEAL. The sum is exact,
    but with probability 2^-128 per session.

    - arrangement: who opens: `KeyHolder()` (default) or `SharedByClients()`, or "keyholder", "shared". There is no
      threshold key: docs/ckks.md says why.
    - min_survivors: fewest contributions that are ever opened, >= 2 (default: None, more than half of the clients).
    - key: for SharedByClients, the clients' `he.ckks.SharedKey` or the path of its file; the server has none
      (default: None, one for parties that are simulated in this process).
    - identity: this party's signing key, beside `roster` (default: None).
    - roster: the verified roster of all clients and of the key holder; the keys that the server relays are then
      signed (default: None).

    Raises Misuse for options that do not fit each other, StoreError for a key file that cannot be read, and
    CapacityError, when a session is made, for a sum that no parameters carry.

        outcome = simulate(CKKSSum(), {"a": [1, 2], "b": [3, 4], "c": [5, 6]})
        outcome.total   # array([ 9, 12])
    """

    name = "ckks"

    def __init__(
        self,
        arrangement: Arrangement | str | None = None,
        min_survivors: int | None = None,
        key: SharedKey | str | Path | None = None,
        identity: Identity | None = None,
        roster: Roster | None = None,
    ) -> None:
        found = named(arrangement) if isinstance(arrangement, str) else arrangement or KeyHolder()
        if not isinstance(found, KeyHolder | SharedByClients):
            raise Misuse(
                "CKKS has no threshold arrangement here (docs/ckks.md says why): "
                "choose KeyHolder or SharedByClients, or PaillierSum for a threshold key"
            )
        super().__init__(found, min_survivors, identity, roster)
        if key is not None and not self.shared:
            raise Misuse(
                "a shared key goes with SharedByClients only; a key holder makes its own for every session"
            )
        if roster is not None and self.shared:
            raise Misuse("a roster goes with a key holder; clients that share a key know each other by it")
        if isinstance(key, str | Path):
            key = SharedKey.load(key)
        if key is not None and not isinstance(key, SharedKey):
            raise Misuse(f"expected a SharedKey or the path of its file, got {type(key).__name__}")
        self._key = key or SharedKey.generate(simulated=True)

    # -- public facts --

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        joining = tags(MayJoin, HasJoined, MadeKeys, GathersJoins, AwaitsHolderKeys)
        return {**super().kinds, **joining}

    @property
    def audit_hooks(self) -> Hooks:
        from he.ckks.audit_hooks import make

        return make(self.shared, self.min_survivors)

    def stages(self, session: Session) -> tuple[Stage, ...]:
        keys = () if self.shared else (Stage(JOIN), Stage(KEY, HOLDER))
        return (*keys, *super().stages(session))

    def scheme_parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> CKKSParameters:
        return choose(clients, dimension, modulus // 2 if modulus else bound, self.shared)

    def protection(self, session: Session) -> Protection:
        facts = _facts(scheme(session), relayed=not self.shared and self._roster is None)
        simulated = self.shared and self._key.simulated
        return protection_of(self.arrangement, facts, self.demands(session), simulated)

    # -- parties --

    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step:
        if self.shared:
            return self.asks_for_input(session, CKKSAccumulator(Adder.empty(scheme(session))))
        everyone = {client(i): Ask() for i in range(session.clients)}
        return Step(GathersJoins(session, {}), requests(session, JOIN, everyone))

    def _client(self, start: ClientStart[IntVector]) -> Step:
        session, index, random = start.session, start.index, start.random
        whole = representatives(start.vector, int(session.modulus))
        if isinstance(self.arrangement, KeyHolder):
            identity = self._signer(session.roster[index], "client")
            holder = self._key_of(self.arrangement.name, HOLDER)
            own = OwnInput(whole, start.update, random.bytes(32), holder)
            join = Join.of(public_key(own.private), session.context, index, identity)
            return Step(MayJoin(session, index, own, join))
        key = CKKSGroupKey.of(self._key.secret, session)
        sent = key.encrypted(session, index, whole)
        return Step(HasCiphertexts(session, index, sent, start.update, key))

    def _helper(
        self, session: Session, party: Party, random: SecureRandom, policy: Policy, memory: bytes | None
    ) -> Step:
        assert isinstance(self.arrangement, KeyHolder)
        secrets = Secrets.make(session, random)
        shown = published(secrets, session, self._signer(self.arrangement.name, HOLDER))
        return Step(MadeKeys(session, self._signers(session), secrets, shown))


_DIGITS = (
    "a value travels as {} digits: whoever opens sees the sum of each, which says more than the values' sum; a client "
    "that works with the server may learn, by whether a sum is opened, one more bit of them in a session"
)
_RELAYED = "public keys reach their parties unchanged: the transport or the operator authenticates them"


def _facts(p: CKKSParameters, relayed: bool) -> SchemeFacts:
    rounding = f"but with probability 2^-{FAILURE_BITS} per session"
    return SchemeFacts(
        "CKKS (SEAL), coefficient packing",
        (
            "ring learning with errors at 128 bits, classical (HomomorphicEncryption.org security standard, 2018)",
            "X25519 and AES-256-GCM for what parties seal to each other",
            *([_RELAYED] if relayed else []),
        ),
        "it takes away the pads of exactly the clients in the sum, and opens what fits their check values: anything "
        "else with probability 2^-80; but a server with a client of its own may shift the sum by what it knows",
        (
            "a client that sends a malformed ciphertext can spoil the sum; it is then refused, and nobody is named",
            *([_DIGITS.format(p.limbs)] if p.limbs > 1 else []),
        ),
        {
            "degree": p.degree,
            "modulus_bits": p.modulus.bit_length(),
            "modulus_bits_allowed": TABLE_128[p.degree],
            "limbs": p.limbs,
            "seeded": p.symmetric,
            "exact": "certain (worst-case noise bound)" if p.worst_case else rounding,
        },
    )
