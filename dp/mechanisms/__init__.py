"""Noise that is released: samplers of integer distributions, and how much noise a statement needs.

Belongs here: drawing from a distribution exactly (up to a stated distance), with bytes from a cryptographic
source. Does not belong here: what the noise costs (`dp.accountants`), clipping (`dp.clipping`), layers.
"""

from dp.mechanisms.analytic_gaussian import analytic_gaussian_delta, analytic_gaussian_sigma
from dp.mechanisms.draw_gaussian import discrete_gaussian
from dp.mechanisms.draw_poisson import poisson
from dp.mechanisms.draw_skellam import skellam
from dp.mechanisms.envelope import SAMPLER_DISTANCE
from dp.mechanisms.grid import grid_noise, to_grid
from dp.mechanisms.sampling import poisson_sample

__all__ = [
    "SAMPLER_DISTANCE",
    "analytic_gaussian_delta",
    "analytic_gaussian_sigma",
    "discrete_gaussian",
    "grid_noise",
    "poisson",
    "poisson_sample",
    "skellam",
    "to_grid",
]
