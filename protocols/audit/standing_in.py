"""One object in the place of another, in every module that holds it by whatever name. No property lives here."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest.mock import patch


class Same:
    """A key that stands for one object, whatever its own notion of equality."""

    def __init__(self, one: Any) -> None:
        self.one = one

    def __hash__(self) -> int:
        return id(self.one)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.one is other.one


@contextlib.contextmanager
def standing_in(places: Mapping[Same, Any], spared: Callable[[str], bool]) -> Iterator[None]:
    """Put each value in the place of its key's object; what was there comes back.

    spared: whether the module of this name keeps what it holds. All modules are looked through, which takes some 10 ms
    where there are thousands: what is done often does it once, around all.
    """
    wanted = {id(key.one): instead for key, instead in places.items()}
    with contextlib.ExitStack() as stack:
        for module_name, module in list(sys.modules.items()):
            held: dict[str, Any] = getattr(module, "__dict__", {})
            if wanted.keys().isdisjoint(map(id, list(held.values()))) or spared(module_name):
                continue
            for name, value in list(held.items()):
                if id(value) in wanted:
                    stack.enter_context(patch.object(module, name, wanted[id(value)]))
        yield
