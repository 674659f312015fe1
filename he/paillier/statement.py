"""What a Paillier sum protects, in words, per key arrangement. Facts only; no protocol logic belongs here."""

from he.keys import Arrangement, KeyHolder, Threshold
from he.paillier.keyring import Keyring
from he.paillier.randomisers import Randomisers
from he.roles.recipients import clients_learn
from protocols.policy import Demands
from protocols.session import Session
from protocols.statement import Protection

_HELD = "it opens only sums whose random tags (64 reserved bits and more) are those that the clients agreed with it"


def protection_of(
    arrangement: Arrangement,
    session: Session,
    keys: Keyring,
    randomisers: Randomisers,
    demands: Demands,
    simulated: bool,
) -> Protection:
    """Return the statement of one session. simulated: this process holds keys that belong to several
    parties.
    """
    return Protection(
        mechanism=f"Paillier encryption with {keys.encryption.bits}-bit keys, {_name(arrangement)}",
        threat=demands.threat,
        hidden="every single client's update",
        learns=_learns(arrangement),
        assumptions=(randomisers.assumption, *_assumptions(arrangement, demands)),
        collusion=_collusion(arrangement),
        limits=tuple(_limits(arrangement, demands, simulated)),
        parameters={
            "arrangement": str(arrangement),
            "key_bits": keys.encryption.bits,
            "exponent_bits": randomisers.exponent_bits,
            "key": keys.digest.hex(),
            "min_survivors": demands.survivors,
            **({"recipients": list(arrangement.recipients)} if isinstance(arrangement, KeyHolder) else {}),
            **(
                {"corrupt": arrangement.corrupt, "quorum": arrangement.quorum}
                if isinstance(arrangement, Threshold)
                else {}
            ),
        },
    )


def _name(arrangement: Arrangement) -> str:
    if isinstance(arrangement, Threshold):
        return f"opened by any {arrangement.t} of {arrangement.n} decryptors together"
    if isinstance(arrangement, KeyHolder):
        return f"opened by {arrangement.name}, a party apart from the aggregator"
    return "with one key that every client holds"


def _learns(arrangement: Arrangement) -> dict[str, str]:
    server = "the sum over the survivors, and who they are"
    if isinstance(arrangement, Threshold):
        return {"server": server, "decryptors": "who is in the sum", "clients": "what the server publishes"}
    if isinstance(arrangement, KeyHolder):
        opener = (
            "the sum over the survivors before it is reduced, and who they are; "
            f"answers to {' and '.join(arrangement.recipients)} alone"
        )
        return {"server": server, arrangement.name: opener, **clients_learn(arrangement.clients)}
    return {"server": server, "clients": "the sum over the survivors before it is reduced, and who they are"}


def _assumptions(arrangement: Arrangement, demands: Demands) -> list[str]:
    found = []
    if isinstance(arrangement, Threshold):
        found.append(
            f"{arrangement.dealer}, who made the key, has forgotten it and handed each share to its holder only"
        )
        found.append(
            "a wrong partial decryption is named by a Fiat-Shamir proof, in the random-oracle model "
            "(Damgard and Jurik, PKC 2001)"
        )
        found.append(
            "a client proves that it knows what it encrypted, in the random-oracle model (Bernhard, Pereira and "
            "Warinschi, ASIACRYPT 2012): it cannot have another's update, or a multiple of it, opened as its own"
        )
    if isinstance(arrangement, KeyHolder):
        found.append(f"{arrangement.name} and the server do not collude; {_HELD}")
    if demands.signed_roster:
        found.append("the clients' signing keys come from a roster that someone other than the server signed")
    return found


def _collusion(arrangement: Arrangement) -> str:
    if isinstance(arrangement, Threshold):
        c, plural = arrangement.corrupt, "s" * (arrangement.corrupt > 1)
        who = (
            f"at most {c} decryptor{plural} may work with the server, and any clients"
            if c
            else ("no decryptor may work with the server; any clients may")
        )
        return (
            f"{who}: they learn the one sum that {arrangement.quorum} of {arrangement.n} decryptors agreed on. With "
            "one decryptor more the server can open two sums that differ by one client; "
            f"{arrangement.t} decryptors read every update that they are sent"
        )
    if isinstance(arrangement, KeyHolder):
        return (
            f"{arrangement.name} together with the server reads every update; "
            "any clients together with one of the two learn the sum only"
        )
    return "one client together with the server reads every update"


def _limits(arrangement: Arrangement, demands: Demands, simulated: bool) -> list[str]:
    limits = [
        "the sum itself may reveal an update: small cohorts, crafted inputs; only differential privacy bounds that"
    ]
    if not isinstance(arrangement, Threshold | KeyHolder):
        limits.append(
            "one client together with the server reads everything: the key is shared by all clients"
        )
    if not demands.signed_roster:
        limits.append(
            "clients are not authenticated by a signed roster: a server that invents clients can isolate one"
        )
    if simulated:
        limits.append(
            "simulated parties: one process holds the keys of several, nothing is hidden from whoever runs it"
        )
    limits.append("a client can contribute any vector: inputs are not proven to be in range")
    return limits
