"""Whether several sums a round go with a federation's layers, before round 1. What does not belong here: a layer's
own composition with others (`protocols.stack`).
"""

from fl.federation_setup import FederationSetup
from fl.round.hidden import is_hidden
from protocols.errors import StackError
from protocols.layers import RunFacts


def require_apart(setup: FederationSetup, run: RunFacts, spared: int | None) -> None:
    """Raises StackError for several sums a round beside what counts on one.

    spared: how many answers a round awaits where it asks more, else None.
    """
    count = len(setup.strategy.sums(setup.names[: run.cohort], 1))
    if count < 2:
        return
    makes = f"{setup.strategy.name} makes {count} sums a round, and"
    if setup.stepless:
        raise StackError(
            f"{makes} {type(setup.stepless[0]).__name__} divides each by the examples of all clients: take FedSGD or "
            "a server step over it, or SampleDP"
        )
    if spared:
        raise StackError(
            f"{makes} spare leaves out who answers last: the sums would have any size; leave out spare"
        )
    if alone := setup.stack.counted:
        raise StackError(
            f"{makes} {alone[0]} with correlated noise carries one sum from round to round, which would enter all of "
            "them: leave out correlation, or take a strategy with one sum a round"
        )
    if is_hidden(setup.stack, run):
        raise StackError(
            f"{makes} their sizes would tell who was chosen in secret: choose "
            'sampling="fixed" over everybody, or take amplify=False'
        )
