"""What a CKKS sum protects, in the words of a statement. No protocol logic belongs here."""

from he.ckks.parameters import FAILURE_BITS, TABLE_128, CKKSParameters
from he.keys import TO_SERVER
from he.roles.parameters import Parameters
from he.roles.recipients import clients_learn
from protocols.statement import Protection

_RELAYED = "public keys reach their parties unchanged: the transport or the operator authenticates them"
_SIGNED = "the roster that signs the parties' keys (Ed25519) is not the server's"
_ASSUMPTIONS = (
    "ring learning with errors at 128 bits, classical (HomomorphicEncryption.org security standard, 2018)",
    "X25519 and AES-256-GCM for what parties seal to each other",
)


ANY_VECTOR = "a client may put any vector within the bounds into the sum: nobody can tell"


def protection(settings: Parameters, p: CKKSParameters, least: int) -> Protection:
    """Return the facts of one session, which opens at least `least` contributions. Raises KeyError for an
    arrangement that does not exist.
    """
    describe = {"keyholder": _key_holder, "shared": _shared}[settings.arrangement]
    return describe(settings, _numbers(settings.arrangement, p) | {"min_survivors": least})


def _numbers(arrangement: str, p: CKKSParameters) -> dict[str, int | str | bool]:
    exact = (
        "certain (worst-case noise bound)"
        if p.worst_case
        else f"but with probability 2^-{FAILURE_BITS} per session"
    )
    return {
        "scheme": "CKKS (SEAL), coefficient packing",
        "arrangement": arrangement,
        "degree": p.degree,
        "modulus_bits": p.modulus.bit_length(),
        "modulus_bits_allowed": TABLE_128[p.degree],
        "limbs": p.limbs,
        "seeded": p.symmetric,
        "exact": exact,
    }


def _key_holder(settings: Parameters, numbers: dict[str, int | str | bool]) -> Protection:
    who = settings.holder
    the_holder = f"the party {who!r}"
    return Protection(
        mechanism=f"CKKS, opened by a key holder ({who})",
        threat="malicious" if settings.roster else "semi-honest",
        hidden="every client's update, from the server, the key holder and the other clients",
        learns={
            "server": "the sum and who is in it",
            who: "the sum and who is in it; it sees no single client's ciphertext, "
            f"and answers to {' and '.join((TO_SERVER, *settings.recipients))} alone",
            **clients_learn(settings.recipients),
        },
        assumptions=(
            *_ASSUMPTIONS,
            _SIGNED if settings.roster else _RELAYED,
            f"the server and {the_holder} do not pool what they have",
        ),
        collusion=f"the server together with {the_holder} reads every update; the server with any number of clients "
        "learns what the sum tells beyond their own inputs",
        limits=(
            "the sum itself may reveal an update; without differential privacy nothing bounds that",
            f"{the_holder} must be a party apart from the server: where all run in one process they are simulated "
            "parties, and whoever runs it reads everything",
            ANY_VECTOR,
            "a client that sends a malformed ciphertext can spoil the sum; it is then refused, and nobody is named",
        ),
        parameters=dict(numbers) | {"recipients": [TO_SERVER, *settings.recipients]},
    )


def _shared(settings: Parameters, numbers: dict[str, int | str | bool]) -> Protection:
    return Protection(
        mechanism="CKKS, the key shared by all clients",
        threat="semi-honest",
        hidden="every client's update, from a server that has no client on its side",
        learns={
            "server": "the sum and who is in it",
            "clients": "the sum; any of them could read every update that it gets hold of",
        },
        assumptions=(*_ASSUMPTIONS, "no client gives the key, or an opened update, to the server"),
        collusion="one client together with the server reads every update",
        limits=(
            "every client holds the key: one client together with the server reads everything",
            ANY_VECTOR,
            "the sum itself may reveal an update; without differential privacy nothing bounds that",
            "where all run in one process they are simulated parties, and whoever runs it reads everything",
        ),
        parameters=dict(numbers),
    )
