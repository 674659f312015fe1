"""What a homomorphic sum protects, in words, per key arrangement. Facts only; no protocol logic belongs here."""

from collections.abc import Mapping
from typing import NamedTuple

from he.arrangements import Arrangement, KeyHolder, Threshold
from protocols.policy import Demands
from protocols.statement import Protection

SUM, PUBLISHED = "the sum over the survivors, and who they are", "what the server publishes"
_INVENTED = "clients are not authenticated by a signed roster: a server that invents clients can isolate one"
_NOISE = "noise in shares (DistributedDP) counts every client's, unless `colluders` says how many work with the server"
SIGNED = "the roster of the parties' signing keys was signed by someone other than the server"


class SchemeFacts(NamedTuple):
    """What differs between the schemes. name: with its keys. assumptions: of the encryption. recognised: why whoever
    holds a whole key opens the sum alone. limits: of its own. parameters: numbers and names.
    """

    name: str
    assumptions: tuple[str, ...]
    recognised: str
    limits: tuple[str, ...]
    parameters: Mapping[str, object]


class _Words(NamedTuple):
    """What differs between the arrangements. name: how the sum is opened. learns: who learns what besides the server.
    rests_on: assumptions. numbers: public ones.
    """

    name: str
    learns: dict[str, str]
    rests_on: tuple[str, ...]
    collusion: str
    numbers: dict[str, object]


def protection_of(
    arrangement: Arrangement, scheme: SchemeFacts, demands: Demands, simulated: bool
) -> Protection:
    """Return the statement of one session. simulated: this process holds keys that belong to several parties."""
    words = _words(arrangement, scheme)
    signed = [SIGNED] if demands.signed_roster else []
    return Protection(
        mechanism=f"{scheme.name}, {words.name}",
        threat=demands.threat,
        hidden="every single client's update",
        learns={"server": SUM, **words.learns},
        assumptions=(*scheme.assumptions, *words.rests_on, *signed),
        collusion=words.collusion,
        limits=(*_limits(arrangement, demands, simulated), *scheme.limits),
        parameters={
            "arrangement": str(arrangement),
            "min_survivors": demands.survivors,
            **words.numbers,
            **scheme.parameters,
        },
    )


def _words(arrangement: Arrangement, scheme: SchemeFacts) -> _Words:
    if isinstance(arrangement, Threshold):
        return _threshold(arrangement)
    if isinstance(arrangement, KeyHolder):
        return _holder(arrangement, scheme)
    return _Words(
        "with one key that every client holds",
        {
            "clients": "the sum before it is reduced, and who is in it; any of them could read every update that it "
            "gets hold of"
        },
        ("no client gives the key, or an opened update, to the server",),
        "one client together with the server reads every update",
        {},
    )


def _threshold(a: Threshold) -> _Words:
    who = f"at most {a.corrupt} decryptor{'s' * (a.corrupt > 1)}" if a.corrupt else "no decryptor"
    return _Words(
        f"opened by any {a.t} of {a.n} decryptors together",
        {"decryptors": "who is in the sum", "clients": PUBLISHED},
        (
            f"{a.dealer}, who made the key, has forgotten it and handed each share to its holder only",
            "a wrong partial decryption is named by a Fiat-Shamir proof, in the random-oracle model "
            "(Damgard and Jurik, PKC 2001)",
            "a client proves that it knows what it encrypted, in the random-oracle model (Bernhard, Pereira and "
            "Warinschi, ASIACRYPT 2012): it cannot have another's update, or a multiple of it, opened as its own",
        ),
        f"{who} may work with the server, any number of clients may: they learn the one sum that {a.quorum} of {a.n} "
        "decryptors agreed on, and what it tells beyond their own inputs. With more decryptors the server may open two "
        f"sums that differ by one client; {a.t} decryptors read every update that they are sent",
        {"corrupt": a.corrupt, "quorum": a.quorum},
    )


def _holder(a: KeyHolder, scheme: SchemeFacts) -> _Words:
    given = {f"client {name}": f"{SUM}, if it is one" for name in a.clients}
    opener = (
        "the sum over the survivors before it is reduced, and who they are; it sees no single client's "
        f"ciphertext, and answers to {' and '.join(a.recipients)} alone"
    )
    return _Words(
        f"opened by a key holder apart from the aggregator ({a.name})",
        {a.name: opener, **given, "other clients" if given else "clients": PUBLISHED},
        (f"{a.name} and the server do not collude; {scheme.recognised}",),
        f"{a.name} together with the server reads every update; any clients together with one of the two "
        "learn the sum, and what it tells beyond their own inputs",
        {"recipients": list(a.recipients)},
    )


def _limits(arrangement: Arrangement, demands: Demands, simulated: bool) -> list[str]:
    limits = [
        "the sum itself may reveal an update: small cohorts, crafted inputs; only differential privacy bounds that"
    ]
    if not isinstance(arrangement, Threshold | KeyHolder):
        limits.append(
            "one client together with the server reads everything: the key is shared by all clients"
        )
    else:
        limits += [_isolating(demands), *([] if demands.signed_roster else [_INVENTED])]
    limits.append(_NOISE)
    if simulated:
        limits.append(
            "simulated parties: one process holds the keys of several, nothing is hidden from whoever runs it"
        )
    limits.append("a client can contribute any vector: inputs are not proven to be in range")
    return limits


def _isolating(demands: Demands) -> str:
    """What the least total means: the server may list corrupt clients and one honest one."""
    others = demands.survivors - 1
    return (
        f"{others} client{'s' * (others != 1)} together with the server can read any other client's update: a total "
        f"over {demands.survivors} of {demands.cohort} clients is opened, and the server has a say in whose; it also "
        "picks a session's clients, and Policy(min_cohort=...) at clients and whoever opens bounds how few"
    )
