"""`secagg choose`: from what a user has and whom they trust to a few stacks of layers, with cost, statement and TOML.

Belongs here: the case (`case`), the stacks and the rules by which they fall away (`stacks`), what was measured
(`measured`), the answer (`answer`). What does not: prompts and printing (`fl.cli.choose`), layers. No torch.
"""

from fl.choose.answer import Choice, Recommendation, choose
from fl.choose.case import Case

__all__ = ["Case", "Choice", "Recommendation", "choose"]
