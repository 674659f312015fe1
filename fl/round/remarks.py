"""What a run speaks up about, in every engine alike: clipped values, capped weights, clients without examples.

Belongs here: the sentences, and that each kind is said once per run. Does not belong here: the counts (`play` reads
them off the sum, which a layer that adds noise does not let them into).
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from fl.round.result import RoundResult

SHOWN = 5


def notes_of(history: Iterable[RoundResult]) -> tuple[str, ...]:
    """Return the notes on a run's rounds so far, for its statement: a sentence per kind that occurred."""
    return tuple(_sentences(list(history)).values())


class Speaker:
    """Says each kind once per run, when it is first seen. say: where to (default: a Python warning)."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say or (lambda said: warnings.warn(said, stacklevel=4))
        self._said: set[str] = set()

    def hear(self, result: RoundResult) -> None:
        """Speak up about a round where it is the first of its kind."""
        for kind, sentence in _sentences([result]).items():
            if kind not in self._said:
                self._said.add(kind)
                self._say(f"round {result.number}: {sentence}")


def _sentences(history: Sequence[RoundResult]) -> dict[str, str]:
    found: dict[str, str] = {}
    share = max((result.clipped_share or 0.0 for result in history), default=0.0)
    if share:
        tensors = Counter[str]()
        for result in history:
            tensors.update(result.clipped_tensors)
        found["clipped"] = (
            f"up to {share:.2%} of a round's coordinates were clipped to the public range{_named(tensors)}: the result "
            "is not exact there; give a larger range"
        )
    if capped := max((result.weights_capped or 0 for result in history), default=0):
        found["capped"] = (
            f"up to {capped} clients of a round count with the public weight cap and not with all their examples: "
            "raise weight_cap"
        )
    if empty := max((result.empty_clients or 0 for result in history), default=0):
        found["empty"] = (
            f"up to {empty} clients of a round have no examples and contribute nothing but their presence"
        )
    return found


def _named(tensors: "Counter[str]") -> str:
    if not tensors:
        return ""
    worst = ", ".join(name for name, _ in tensors.most_common(SHOWN))
    return f", in {worst}{f' and {len(tensors) - SHOWN} more tensors' if len(tensors) > SHOWN else ''}"
