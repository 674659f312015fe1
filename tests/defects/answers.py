"""Broken answers: requests that a client must refuse, and totals that are not what they say."""

import hashlib
from dataclasses import replace
from typing import Any

from protocols.kernel import Message, Step
from protocols.summation import Total
from secagg import SecAgg
from secagg.client import opening as client_opening
from secagg.client import view
from secagg.server import summing as server_summing
from tests.defects.pieces import MASKING_RECEIVE, OPENING_RECEIVE, anything_goes, malicious, unmarked
from tests.defects.planting import Defect, put, together


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


def total_over(change: Any) -> Any:
    """A server whose total is over other clients than it says."""

    def close(self: Any, random: Any) -> Step:
        step = CLOSE(self, random)
        if isinstance(step.state, Total):
            return Step(change(step.state))
        return step

    return put("secagg.server.opening.ServerOpening.close", close)


def opening_close() -> Any:
    from secagg.server.opening import ServerOpening

    return ServerOpening.close


CLOSE = opening_close()


def unchecked_share(self: Any, holder: int, owner: int, share: bytes) -> bool:
    self.shares.setdefault(owner, {})[holder] = share
    return True


def holder_alone(self: Any, holder: int, owners: list[int]) -> list[str]:
    """Whoever opens a share that is not the pledged one, whatever its dealer sealed for it."""
    return [f"client {holder}"] if owners else []


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
            put("secagg.session_rules.Rules.shortfall", lambda *_: ""),
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
        put("secagg.advertisement.verify", anything_goes),
        malicious,
    ),
    Defect(
        "split views of who survived",
        "forged-requests-refused",
        put("protocols.agreement.check_vote", anything_goes),
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
        "a wrong share is used",
        "cheating-clients-are-named",
        put("secagg.server.opening.ServerOpening._keep", unchecked_share),
        SecAgg,
    ),
    Defect(
        "with reused keys a holder is blamed for what its dealer pledged",
        "cheating-clients-are-named",
        put("secagg.server.opening.ServerOpening._faults", holder_alone),
        lambda: SecAgg(setup="reuse"),
    ),
    Defect(
        "answers counted twice",
        "order-and-duplicates",
        put("secagg.server.summing.Summing.receive", counts_duplicates),
        SecAgg,
    ),
)
