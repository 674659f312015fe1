"""Empirical audits: what an adversary can measure, beside what a statement says. They find defects; they
prove nothing safe.

Belongs here: lower bounds on epsilon (`one_run`, `two_distributions`, `canaries`) and direct tests of
noise, sensitivity and sampling with stated error rates (`checks`). Does not belong here: accounting.
Nothing here needs torch but `per_example`, which lives under `dp.sample.audit` and is loaded when asked for.
"""

from typing import TYPE_CHECKING

from dp.audit.canaries import CanaryAudit, audit_sum
from dp.audit.checks import (
    Verdict,
    check_fresh,
    check_noise,
    check_norms,
    check_reach,
    check_sampling,
    draws_needed,
)
from dp.audit.layers import LayerAudit, Rehearsal, audit_layer
from dp.audit.one_run import one_run_epsilon, one_run_p_value
from dp.audit.runs import audit_run
from dp.audit.two_distributions import audit_pair, two_distribution_epsilon

if TYPE_CHECKING:
    from dp.sample.audit.per_example import per_example as per_example

__all__ = [
    "CanaryAudit",
    "LayerAudit",
    "Rehearsal",
    "Verdict",
    "audit_layer",
    "audit_pair",
    "audit_run",
    "audit_sum",
    "check_fresh",
    "check_noise",
    "check_norms",
    "check_reach",
    "check_sampling",
    "draws_needed",
    "one_run_epsilon",
    "one_run_p_value",
    "per_example",
    "two_distribution_epsilon",
]


def __getattr__(name: str) -> object:
    if name != "per_example":
        raise AttributeError(f"module 'dp.audit' has no attribute {name!r}")
    from dp.sample.audit.per_example import per_example

    return per_example
