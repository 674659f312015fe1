"""How a defect is planted: a few lines put over a good implementation while it is audited. Never shipped."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from protocols.audit.subject import Searched
from protocols.summation import SecureSum

SMALL = Searched(complete=(5,), sparse=(), ring=((20, 10),), glance=0.2)
"""Sessions in which an adversary that searches finds most planted defects."""


@dataclass(frozen=True)
class Defect:
    """name: its class of failure. caught_by: the property that must find it. plant: a context in
    which the defect is there. protocol: what is audited then. examples: how many the property gets. searched: where
    an adversary that searches must find it.
    """

    name: str
    caught_by: str
    plant: Callable[[], contextlib.AbstractContextManager[Any]]
    protocol: Callable[[], SecureSum]
    examples: int = 25
    searched: Searched = SMALL


def put(target: str, new: Any) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Replace `module.attribute` or `module.Class.method` while the defect is planted."""
    return lambda: patch(target, new)


def together(*plants: Callable[[], contextlib.AbstractContextManager[Any]]) -> Callable[[], Any]:
    """Several replacements at once."""

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for plant in plants:
                stack.enter_context(plant())
            yield

    return planted
