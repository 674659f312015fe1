"""What a homomorphic sum protects, in words, per key arrangement. Facts only; no protocol logic belongs here."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from he.arrangements import Arrangement, KeyHolder, Threshold
from protocols.policy import Demands
from protocols.statement import Protection

SUM = "the sum over the survivors, and who they are"


class SchemeFacts(NamedTuple):
    """What differs between the schemes. name: with its keys. assumptions: of the encryption. recognised: why whoever
    holds a whole key opens the sum alone. limits: of its own. parameters: numbers and names.
    """

    name: str
    assumptions: tuple[str, ...]
    recognised: str
    limits: tuple[str, ...]
    parameters: Mapping[str, Any]


def protection_of(
    arrangement: Arrangement, scheme: SchemeFacts, demands: Demands, simulated: bool
) -> Protection:
    """Return the statement of one session. simulated: this process holds keys that belong to several parties."""
    return Protection(
        mechanism=f"{scheme.name}, {_name(arrangement)}",
        threat=demands.threat,
        hidden="every single client's update",
        learns=_learns(arrangement),
        assumptions=(*scheme.assumptions, *_assumptions(arrangement, scheme, demands)),
        collusion=_collusion(arrangement),
        limits=(*_limits(arrangement, demands, simulated), *scheme.limits),
        parameters={
            "arrangement": str(arrangement),
            "min_survivors": demands.survivors,
            **_numbers(arrangement),
            **scheme.parameters,
        },
    )


def _name(arrangement: Arrangement) -> str:
    if isinstance(arrangement, Threshold):
        return f"opened by any {arrangement.t} of {arrangement.n} decryptors together"
    if isinstance(arrangement, KeyHolder):
        return f"opened by a key holder apart from the aggregator ({arrangement.name})"
    return "with one key that every client holds"


def _numbers(arrangement: Arrangement) -> dict[str, Any]:
    if isinstance(arrangement, Threshold):
        return {"corrupt": arrangement.corrupt, "quorum": arrangement.quorum}
    return {"recipients": list(arrangement.recipients)} if isinstance(arrangement, KeyHolder) else {}


def _learns(arrangement: Arrangement) -> dict[str, str]:
    if isinstance(arrangement, Threshold):
        return {"server": SUM, "decryptors": "who is in the sum", "clients": "what the server publishes"}
    if isinstance(arrangement, KeyHolder):
        opener = (
            "the sum over the survivors before it is reduced, and who they are; it sees no single client's "
            f"ciphertext, and answers to {' and '.join(arrangement.recipients)} alone"
        )
        return {"server": SUM, arrangement.name: opener, **_clients_learn(arrangement.clients)}
    return {
        "server": SUM,
        "clients": "the sum before it is reduced, and who is in it; any of them could read every update that it "
        "gets hold of",
    }


def _clients_learn(recipients: Collection[str]) -> dict[str, str]:
    given = {f"client {name}": f"{SUM}, if it is one" for name in recipients}
    return given | {"other clients" if given else "clients": "what the server publishes"}


def _assumptions(arrangement: Arrangement, scheme: SchemeFacts, demands: Demands) -> list[str]:
    found = []
    if isinstance(arrangement, Threshold):
        found += [
            f"{arrangement.dealer}, who made the key, has forgotten it and handed each share to its holder only",
            "a wrong partial decryption is named by a Fiat-Shamir proof, in the random-oracle model "
            "(Damgard and Jurik, PKC 2001)",
            "a client proves that it knows what it encrypted, in the random-oracle model (Bernhard, Pereira and "
            "Warinschi, ASIACRYPT 2012): it cannot have another's update, or a multiple of it, opened as its own",
        ]
    elif isinstance(arrangement, KeyHolder):
        found.append(f"{arrangement.name} and the server do not collude; {scheme.recognised}")
    else:
        found.append("no client gives the key, or an opened update, to the server")
    if demands.signed_roster:
        found.append("the roster of the parties' signing keys was signed by someone other than the server")
    return found


def _collusion(arrangement: Arrangement) -> str:
    if isinstance(arrangement, Threshold):
        c, plural = arrangement.corrupt, "s" * (arrangement.corrupt > 1)
        who = f"at most {c} decryptor{plural}" if c else "no decryptor"
        return (
            f"{who} may work with the server, any number of clients may: they learn the one sum that "
            f"{arrangement.quorum} of {arrangement.n} decryptors agreed on, and what it tells beyond their own inputs. "
            "With more decryptors the server may open two sums that differ by one client; "
            f"{arrangement.t} decryptors read every update that they are sent"
        )
    if isinstance(arrangement, KeyHolder):
        return (
            f"{arrangement.name} together with the server reads every update; any clients together with one of the two "
            "learn the sum, and what it tells beyond their own inputs"
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
    elif not demands.signed_roster:
        limits.append(
            "clients are not authenticated by a signed roster: a server that invents clients can isolate one"
        )
    if simulated:
        limits.append(
            "simulated parties: one process holds the keys of several, nothing is hidden from whoever runs it"
        )
    limits.append("a client can contribute any vector: inputs are not proven to be in range")
    return limits
