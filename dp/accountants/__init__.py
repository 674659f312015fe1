"""What events cost: accountants that turn events into (epsilon, delta).

Belongs here: prices and the bounds they rest on (docs/dp-account.md derives each). Does not belong here:
what happened (`dp.events`), who may spend (`dp.ledger`), how much noise to take (`dp.calibration`).
"""

from collections.abc import Iterable

from dp.accountants.base import Accountant
from dp.accountants.pld import PLDAccountant
from dp.accountants.rdp import RDPAccountant
from dp.events import Event
from protocols.errors import Misuse

ACCOUNTANTS: dict[str, type[Accountant]] = {"rdp": RDPAccountant, "pld": PLDAccountant}


def accountant(name: str) -> Accountant:
    """A fresh accountant by name, "rdp" or "pld". Raises Misuse for another."""
    if not isinstance(name, str) or name not in ACCOUNTANTS:
        raise Misuse(f"expected an accountant out of {', '.join(ACCOUNTANTS)}, got {name!r}")
    return ACCOUNTANTS[name]()


def epsilon(events: Iterable[Event], delta: float, name: str = "pld") -> float:
    """The epsilon of `events` together at `delta`, by the accountant `name`; infinity where there is
    none."""
    account = accountant(name)
    for event in events:
        account.add(event)
    return account.epsilon(delta)


__all__ = ["ACCOUNTANTS", "Accountant", "PLDAccountant", "RDPAccountant", "accountant", "epsilon"]
