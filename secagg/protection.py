"""What a masked session protects, in prose, as facts of its parameters. What does not belong here: enforcement."""

from protocols.statement import Protection
from secagg.mask_parameters import MALICIOUS, NUMBERS, SEMI_HONEST, SEMI_MALICIOUS
from secagg.parameter_choice import FEW, Wishes
from secagg.parameters.conditions import MOST_TRIES, least_held
from secagg.session_rules import Rules

_SERVER = {
    SEMI_HONEST: "the server follows the protocol and keeps what it sees",
    SEMI_MALICIOUS: "the server follows the protocol until shares are dealt (it hands out keys and draws the graph "
    "honestly) and may then send anything to anybody: other dealers and survivors to each client, or nothing",
    MALICIOUS: "the server may do anything; clients' identities come from a roster that it did not sign",
}
_SOURCES = (
    "X25519 (gap Diffie-Hellman), HKDF-SHA256, AES-128-CTR as a generator of masks, AES-256-GCM "
    "(Bonawitz et al., CCS 2017)",
    "corrupt clients are fixed before the graph is drawn, and are at most as many as stated",
)
_AGREED = (
    "SHA-256 does not collide, Ed25519 signatures are not forged",
    "no honest client's store is wound back unnoticed",
)
_LIMITS = (
    "a client may put any vector whatever into the sum: nobody can detect that under masks",
    "the sum itself may reveal an update (small cohorts, crafted models, sybils): add differential privacy",
    "who takes part, who drops out and how long each takes is visible",
)


def protection(rules: Rules, wishes: Wishes) -> Protection:
    """Return the statement of one session's protection."""
    p = rules.parameters
    secrets = "each round's seeds" if p.reuse else "secrets"
    holders = len(rules.holders) if p.reuse and not rules.complete else p.degree
    server = _SERVER[p.threat]
    if p.reuse:
        server = server.replace("until shares are dealt", "until keys are agreed")
    graph = "the complete graph" if rules.complete else f"a random {p.degree}-regular graph"
    return Protection(
        mechanism=f"pairwise and self masks on {graph}, {secrets} shared {p.threshold} of {holders}",
        threat=p.threat,
        hidden="every client's vector within the sum",
        learns={
            "server": f"{_sum(rules)}, who takes part and who drops out",
            "clients": "their neighbours' public keys, what the server publishes",
        },
        assumptions=(server, *_SOURCES, *(_AGREED if rules.voted else ()), *_graph(rules)),
        collusion=_collusion(rules, wishes),
        limits=(*_LIMITS, *_limits(rules)),
        parameters={
            "clients": rules.clients,
            **{name: getattr(p, name) for name in NUMBERS if name != "survivors"},
            "least_survivors": rules.survivors,
            "ring_bits": rules.ring.bits,
        },
    )


def _graph(rules: Rules) -> tuple[str, ...]:
    if rules.complete:
        return ()
    if rules.committed:
        return ("the graph's seed is fixed by commitments of all clients that are revealed afterwards",)
    if rules.parameters.beacon:
        return (
            "the graph's seed is a public beacon that nobody knew when the roster was signed",
            "the corrupt clients are fixed before the beacon appears: every round's graph is known from then on",
        )
    return ("the graph's seed follows from the server's nonce: the server draws it honestly",)


def _sum(rules: Rules) -> str:
    """What opens: on one view of who survived, whatever each client is shown and whoever is silent."""
    if not rules.agrees:
        return "the sum over the survivors"
    return (
        f"the sum over the honest clients of one set of at least {rules.survivors} survivors, of whom at most "
        f"{rules.parameters.corrupt} are corrupt"
    )


def _collusion(rules: Rules, wishes: Wishes) -> str:
    p = rules.parameters
    if p.threat != SEMI_HONEST:
        text = f"the server with up to {p.corrupt} of the {rules.clients} clients, who sign or are silent as they like"
        few = least_held(p.quorum, len(rules.holders)) - 1 if p.reuse and rules.agrees else p.corrupt
        return text + f", at most {few} of the holders of everybody's shares" * (few < p.corrupt)
    return (
        f"the server with up to {wishes.demand.collusion:.0%} of the clients, at most {p.threshold - 1} of the "
        f"{p.degree} that hold shares of one client's secrets"
    )


def _component(rules: Rules) -> str:
    """In which sum a sparse graph hides a client."""
    p = rules.parameters
    if p.threat == SEMI_HONEST:
        return (
            "a sparse graph hides each client in the sum of its connected component of honest survivors, for corrupt "
            "clients fixed before the graph; that is all of them, but for the planned failure probability, over chance "
            "drop-outs"
        )
    return (
        "a sparse graph hides each client in the sum of all honest survivors, whoever the server drops, for corrupt "
        "clients fixed before the graph, but for the planned failure probability: "
        f"any {p.degree // 2} clients in a row keep {p.window} survivors, more than its corrupt ones"
    )


def _limits(rules: Rules) -> tuple[str, ...]:
    found = []
    if not rules.complete:
        found.append(_component(rules))
    if rules.parameters.threat == SEMI_HONEST:
        found.append("a server that lies about who survived can open a client's vector: it is trusted not to")
    if rules.parameters.threat != MALICIOUS:
        found.append(
            "keys are bound to names by the server: it could sit in the middle of two clients when it hands them out"
        )
    if rules.voted and not rules.agrees:
        found.append(
            f"later rounds have no vote: each holder is shown {rules.shown} survivors or more; by showing them others "
            f"each the server can leave more clients out, but {rules.survivors} are in every total"
        )
    if rules.voted and not rules.agrees and 2 * rules.threshold <= rules.clients <= FEW:
        found.append(
            "a client that works with a server that lies about who survived can have another's vector opened: so few "
            "clients with reused keys stand none that does, and with fresh keys one"
        )
    if rules.parameters.reuse:
        found += [
            "one set-up serves many rounds: its graph and committee stay, so the corrupt clients must be fixed "
            "before the set-up, not just before each session",
            "whoever breaks into a client reads its rounds until the next set-up; earlier rounds stay "
            "closed, but for a digest of each update, which confirms a guess of it",
        ]
    if rules.committed:
        found += [
            "a client that withholds its part of the graph's seed ends the session, by name, before any vector leaves",
            f"a server that gives up sessions before any vector leaves can choose among {MOST_TRIES} graphs, which the "
            "failure probability counts; then clients take part in no more",
        ]
    found.append("a client that deals shares which do not open can end a session after vectors have left")
    return tuple(found)
