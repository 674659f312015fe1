"""Trade-off runs: layers, epsilons, sums, strategies, seeds and drop-outs on one's own model and data, cell by cell.

Belongs here: which cells there are and in which order (`sweep`), how each is played (`processes`), what is kept of
it (`rows`). What does not: training, prices and sums, which a cell has from `secagg run`'s own parts; the page
(`fl.report`).
"""

from fl.tradeoff.processes import tradeoff
from fl.tradeoff.rows import Tradeoff

__all__ = ["Tradeoff", "tradeoff"]
