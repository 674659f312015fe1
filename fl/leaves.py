"""Leaves of a model that stay as the server has them: what a client checks about them after its local computation.

Does not belong here: which they are (`fl.tensors.trained`), those that stay at the client (`fl.computation`).
"""

import numpy as np

from fl.round import Reference
from fl.tensors.trained import is_statistic
from protocols.errors import Misuse
from protocols.updates import Flat


def require_kept(flat: Flat, reference: Reference) -> None:
    """Raises Misuse if training changed a floating-point tensor that is not sent: the change would be lost silently."""
    for leaf in reference.schema.leaves:
        if leaf.rule != "keep" or np.dtype(leaf.dtype).kind not in "fc" or is_statistic(leaf.name):
            continue
        before, after = reference.flat.kept[leaf.path], flat.kept[leaf.path]
        if not np.array_equal(before, after, equal_nan=True):
            raise Misuse(
                f"{leaf.name}: training changed it, and it is not sent, because it did not require gradients when the "
                'model was made, is no parameter, or no pattern names it: say parameters="all" (a buffer: '
                'buffers="local"), or let the model\'s factory unfreeze it'
            )
