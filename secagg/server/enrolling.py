"""How a round begins where keys are reused: after a set-up's keys came, or from what the server keeps of one."""

from dataclasses import replace

from protocols.errors import Misuse, TooFewSurvivors
from protocols.kernel import Step
from protocols.session import Session
from secagg.memory import ServerMemory, Setup
from secagg.messages import INPUT, Proceed, indices
from secagg.packing import accumulator
from secagg.places import Places
from secagg.server.base import Facts
from secagg.server.summing import Summing
from secagg.session_rules import rules_of


def enrolled(session: Session, keys: dict[int, bytes], patience: int) -> Step:
    """Return the first round of a set-up, with the keys that clients need. Raises TooFewSurvivors."""
    rules = rules_of(session)
    places = Places(rules, rules.seed, keys)
    if len(places.holders(-1)) <= rules.threshold:
        raise TooFewSurvivors(f"expected more share holders than {rules.threshold} to enrol")
    memory = ServerMemory(Setup.of(session), session.round, keys, indices(()), patience)
    asked = {i: places.known(i) for i in sorted(keys)}
    bodies = {i: Proceed(places.bits, indices(j), b"".join(keys[k] for k in j)) for i, j in asked.items()}
    return _begin(session, memory, bodies)


def resumed(session: Session, kept: ServerMemory | None) -> Step:
    """Return a later round. Raises Misuse if the server keeps no such set-up."""
    if kept is None or kept.setup != Setup.of(session):
        raise Misuse(
            "the session builds on a set-up that this server does not keep: make a session without it"
        )
    if session.round <= kept.last_round:
        raise Misuse(f"round {session.round} was begun already, the last one is {kept.last_round}")
    nobody = Proceed(b"", indices(()), b"")
    return _begin(session, replace(kept, last_round=session.round), dict.fromkeys(sorted(kept.keys), nobody))


def _begin(session: Session, memory: ServerMemory, bodies: dict[int, Proceed]) -> Step:
    rules = rules_of(session)
    facts, total = Facts(memory.keys, {}, rules.seed), accumulator(session.dimension, rules.ring)
    state = Summing(session, facts, total, {}, memory)
    asks = tuple(state.request(INPUT, i, body) for i, body in bodies.items())
    return Step(state, asks, memory=memory.encode())
