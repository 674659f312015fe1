"""What the trials of a search spent: kept with what they found, and priced at a run's delta.

What does not belong here: the trials.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dp.accountants import RDPAccountant
from dp.event_json import decode, encode, from_fact
from dp.events import UnknownEvent
from fl.report.folders import Json
from protocols.errors import Misuse
from protocols.statement import PrivacyEvent


def spent(events: Sequence[PrivacyEvent]) -> list[Json]:
    """Return what a trial released as tables: `event` (its JSON), `times`, and `parties` whose data it spends, none for
    everybody's. Parties that spend alike share a table.
    """
    counted = Counter((encode(from_fact(fact)), fact.party) for fact in events)
    alike: dict[tuple[str, int], list[str]] = defaultdict(list)
    for (event, party), times in counted.items():
        alike[event, times] += [party] if party else []
    return [{"event": event, "times": times, "parties": parties} for (event, times), parties in alike.items()]


def price(search: Mapping[str, Any], delta: float) -> float | str | None:
    """Return the epsilon of all trials that a table's settings follow, together, by RDP: of the dearest client;
    "infinite" where none bounds them at this delta. None where the table does not say what they spent, or that has no
    sound price.
    """
    if "spent" not in search:
        return None
    parties = {party for each in search["spent"] for party in each["parties"]} or {""}
    found = []
    try:
        for party in parties:
            account = RDPAccountant()
            for each in search["spent"]:
                if not each["parties"] or party in each["parties"]:
                    account.add(decode(each["event"]), each["times"])
            found.append(account.epsilon(delta))
    except (UnknownEvent, Misuse):
        return None
    return max(found) if max(found) < math.inf else "infinite"
