"""Ends of a masked session that only masked sums have. What does not belong here: what every protocol raises."""

from protocols.errors import Aborted


class DealerBlamed(Aborted):
    """A secret was put together from good shares and is not what its dealer pledged: the dealer cheated.
    `party` names it.
    """

    def __init__(self, party: str, what: str) -> None:
        super().__init__(
            f"{party} dealt shares that do not give the {what} it pledged; leave it out of the retry"
        )
        self.party = party
