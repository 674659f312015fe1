"""Errors of private local training. What belongs here: error types. What does not: checks (`guard`,
`validation`)."""

import logging

from protocols.errors import Misuse

_LOG = logging.getLogger(__name__)


class _Named(Misuse):
    """Base: `reasons` maps names of parts of the model to what is wrong with them. `wanted`, `cure`: what is said."""

    wanted = cure = ""

    def __init__(self, reasons: dict[str, str]) -> None:
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        super().__init__(f"expected {self.wanted}, got {listed}. {self.cure}")
        self.reasons = dict(reasons)


class UnsupportedModule(_Named):
    """The model holds modules for which an example's own gradient does not exist."""

    wanted = "a model whose every module gives per-example gradients"
    cure = "Replace these modules, or ask for repair=True"


class NotPerExample(_Named):
    """Parameters whose rows are not the gradients of single examples."""

    wanted = "every trainable parameter's gradient to be a sum of the examples' own"
    cure = "Nothing was trained; `secagg audit sample-dp` shows every parameter and mode"


class UnaccountedStep(Misuse):
    """Parameters changed, or could have changed, in a step that was not clipped, noised and counted, or by batches and
    step sizes that were not what was accounted. Nothing is sent."""


class NonFiniteGradient(Misuse):
    """No example has a gradient without NaN and infinity: nothing can be checked. Under training such examples count as
    zero."""


def tell(whose: str, lost: int) -> None:
    """Say in the client's own log, and nowhere else, that examples counted as zero. What the log holds is private."""
    if lost:
        _LOG.warning(
            "%s: the gradients of %d examples held NaN or infinity, or were longer than 2^50; each counted as "
            "zero, and nobody else is told: check the data, the loss and the learning rate",
            *(whose, lost),
        )


def tell_silent(whose: str) -> None:
    """The same where nothing can be checked."""
    _LOG.warning(
        "%s: no example has a finite gradient, so that they pass one at a time and what is sent may be noise alone; "
        "nobody else is told: check the data, the model and the loss",
        whose,
    )
