"""What a rehearsal on one machine has in place of what a deployment brings. Deployments do not belong here."""

from secagg import SecAggPlus
from secagg.credentials import Credentials


def names(clients: int) -> list[str]:
    """The names that a split without natural clients gives."""
    width = max(2, len(str(clients - 1)))
    return [f"client-{number:0{width}d}" for number in range(clients)]


def checked(clients: int, dropout: float = 0.2) -> SecAggPlus:
    """Masks against a server that lies, with throwaway identities of all clients in this process. In a deployment each
    has its own, and a roster that the server did not sign: docs/secagg.md.
    """
    return SecAggPlus(dropout=dropout, threat="malicious", credentials=Credentials.simulated(names(clients)))
