"""Every error this project raises on purpose, and the check of an argument. What does not belong here: handling.

Two families are kept apart, as in h11: `Misuse` is the caller's own mistake (fix the call), `PeerError` is
another party's misbehaviour (the caller did nothing wrong). A third, `Aborted`, is the clean end of a session
without a total.
"""


class SecAggError(Exception):
    """Base of every error raised on purpose; the command line prints its message alone, without a
    traceback.
    """


class Misuse(SecAggError, ValueError):
    """The caller asked for something wrong: what was expected, what came, what to do."""


def require(holds: object, wanted: str, got: object, of: str = "") -> None:
    """Raises Misuse, "expected `wanted`, got `got`", unless it holds. of: the argument's name, where `wanted` has none.

    >>> require(3 <= 2, "at most 2 clients", 3)
    Traceback (most recent call last):
    ...
    protocols.errors.Misuse: expected at most 2 clients, got 3
    """
    if not holds:
        raise Misuse(f"{of}: expected {wanted}, got {got}" if of else f"expected {wanted}, got {got}")


class CapacityError(Misuse):
    """The sum would not fit: clients x weight cap x bound reaches half the modulus."""


class StackError(Misuse):
    """Layers do not fit each other: what one gives is not what the next one takes."""


class PolicyRefusal(SecAggError):
    """A client refuses a session that asks for less than its own policy demands; names the demand that
    failed.
    """


class SpentUpdate(PolicyRefusal):
    """The update left this client once already; a second total of it could isolate it."""


class SetupMissing(PolicyRefusal):
    """A client does not keep the set-up that a session builds on, not at this round: a new set-up lets it take part."""


class PeerError(SecAggError):
    """Another party misbehaved. `party` names it where the protocol can tell, else it is None."""

    def __init__(self, message: str, party: str | None = None) -> None:
        super().__init__(message)
        self.party = party


class WireError(PeerError):
    """Bytes that are not a valid message or state: truncated, over-long, unknown version, out of range."""


class ProtocolViolation(PeerError):
    """A well-formed message that the protocol does not allow now: wrong stage, session, sender or content."""


def refuse(reason: str) -> ProtocolViolation:
    """The server asked for something, or showed something, that the protocol does not allow."""
    return ProtocolViolation(reason, "server")


class Aborted(SecAggError):
    """The session ended without a total. `reason` is safe to publish: it reveals nothing about any update. refusals: of
    a simulation, party -> why it stopped.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refusals: dict[str, str] = {}


class TooFewSurvivors(Aborted):
    """Fewer parties than the threshold answered a stage."""


class NoResult(SecAggError):
    """A run is over and none of its rounds has a total: there is no model but the one that it began with."""


class StoreError(SecAggError):
    """A party's store cannot be read or written; the previous state is whole."""


class RollbackDetected(StoreError):
    """The store is older than its anchor says: it was restored from a copy, and answers nothing."""


class RecordError(SecAggError):
    """A run record does not verify: edited, cut short or re-ordered."""


class BudgetExceeded(SecAggError):
    """The next step would spend more privacy than the ledger allows; it was not taken."""


class ClientFailed(SecAggError):
    """A client's own computation failed: its loop raised, gave another shape, hung or died. The text quotes no data of
    the client's; `__cause__`, where it was in this process, may.
    """


REFUSALS = (PolicyRefusal, PeerError, Aborted, BudgetExceeded, StoreError, ClientFailed)
"""What ends one party's part in a session and nobody else's: it is gone, with its reason."""


class MissingExtra(SecAggError, ImportError):
    """An optional dependency is not installed; the message gives the pip command."""


class DataMissing(SecAggError):
    """A data set was not found: where it was looked for and how to get it."""
