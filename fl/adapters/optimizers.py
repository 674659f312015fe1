"""A template's optimizer, made again for a copy of its model.

What does not belong here: whoever made the template.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

Factory = Callable[[Iterable[Any]], Any]


def again(optimizer: Any, parameters: Iterable[Any]) -> Factory:
    """Return what makes a copy of `optimizer`, groups, numbers and all, for the parameters of another model, in the
    order of `parameters`, which are those of the optimizer's own model.
    """
    own = list(parameters)

    def make(others: Iterable[Any]) -> Any:
        return deepcopy(optimizer, {id(mine): other for mine, other in zip(own, others, strict=True)})

    return make
