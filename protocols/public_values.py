"""What is broadcast besides the model, as records that are digested and sent. Not here: who reads these."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.errors import Misuse
from protocols.layers import Public, Value


@dataclass(frozen=True, eq=False)
class Shaped(Record):
    """An array of floats as it is digested and sent: shape, and the values in C order."""

    shape: tuple[int, ...]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 0 or math.prod(self.shape) != self.values.size:
            raise Misuse(f"expected {self.shape} to hold {self.values.size} values")


@dataclass(frozen=True, eq=False)
class PublicValues(Record):
    """What is broadcast besides the model, as it is digested and sent: by who broadcasts it, then by name."""

    numbers: dict[str, dict[str, float]]
    arrays: dict[str, dict[str, Shaped]]

    @classmethod
    def of(cls, public: Public) -> "PublicValues":
        numbers, arrays = dict[str, dict[str, float]](), dict[str, dict[str, Shaped]]()
        for name, values in public.items():
            numbers[name] = {k: float(v) for k, v in values.items() if not isinstance(v, np.ndarray)}
            if held := {k: _shaped(v) for k, v in values.items() if isinstance(v, np.ndarray)}:
                arrays[name] = held
        return cls(numbers, arrays)

    def public(self) -> dict[str, dict[str, Value]]:
        """Return what `of` was given."""
        found: dict[str, dict[str, Value]] = {name: dict(held) for name, held in self.numbers.items()}
        for name, held in self.arrays.items():
            found.setdefault(name, {}).update({k: a.values.reshape(a.shape) for k, a in held.items()})
        return found


def _shaped(array: NDArray[np.float64]) -> Shaped:
    return Shaped(array.shape, np.ascontiguousarray(array, np.float64).reshape(-1))
