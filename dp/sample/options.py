"""How examples are clipped, as the user says it. What belongs here: options and their checks; no torch, no
Opacus."""

import math
from dataclasses import dataclass

from protocols.errors import Misuse
from protocols.numbers import between_0_and_1, positive, whole

GRADIENTS = ("hooks", "functorch", "ew", "ghost")
ASSUMED = (
    "the model, the loss and the loop keep nothing between batches and do not mix examples; a check of every example "
    "before training, and of attributes in each round, looks for breaches and cannot prove that there are none; an "
    "example is one client's and one item of its data"
)
"""What the statement says that nothing can prove."""


@dataclass(frozen=True)
class AdaptiveClip:
    """A clip that follows a quantile of the examples' norms (Andrew et al. 2021).

    start, least, most: where the clip begins and may go, in gradient units. quantile: share of examples
    that stay unclipped. rate: learning rate of log(clip). count_noise: standard deviation of the count's
    noise as a share of the expected batch; the count is accounted together with the gradient.
    """

    start: float = 1.0
    quantile: float = 0.5
    rate: float = 0.2
    least: float = 1e-3
    most: float = 1e3
    count_noise: float = 0.05

    def __post_init__(self) -> None:
        for name in ("start", "rate", "least", "most", "count_noise"):
            positive(name, getattr(self, name))
        if not (self.least <= self.start <= self.most and self.least < self.most):
            raise Misuse(f"expected 0 < least <= start <= most, got {self.least}, {self.start}, {self.most}")
        between_0_and_1("quantile", self.quantile)

    def count_std(self, expected_batch: float) -> float:
        """Standard deviation of the noise on the count of unclipped examples."""
        return self.count_noise * expected_batch


@dataclass(frozen=True)
class Clipping:
    """clip: an L2 norm, one for all ("flat"); with per_layer the same norm is shared out over the parameter
    tensors, or a tuple gives one for each; or an AdaptiveClip. gradients: how Opacus gets per-example
    gradients: "hooks", "functorch" (any module), "ew" (torch's expanded weights) or "ghost" (rows
    made twice, a few examples at a time: least memory). physical_batch: most examples at once in memory.
    """

    clip: float | tuple[float, ...] | AdaptiveClip = 1.0
    per_layer: bool = False
    gradients: str = "hooks"
    physical_batch: int | None = None

    def __post_init__(self) -> None:
        if self.gradients not in GRADIENTS:
            raise Misuse(f"expected gradients to be one of {GRADIENTS}, got {self.gradients!r}")
        if isinstance(self.clip, tuple) and not self.per_layer:
            raise Misuse("several clip norms need per_layer=True")
        if self.per_layer and (self.gradients == "ghost" or isinstance(self.clip, AdaptiveClip)):
            raise Misuse(
                "per-layer clipping has fixed norms and needs per-example gradients: not adaptive, not ghost"
            )
        if self.physical_batch is not None:
            whole("physical_batch", self.physical_batch, 1)
        if not isinstance(self.clip, AdaptiveClip):
            for norm in self.clip if isinstance(self.clip, tuple) else (self.clip,):
                positive("clip", norm)

    @property
    def start(self) -> float:
        """The L2 bound on a whole example's gradient in the first step."""
        if isinstance(self.clip, AdaptiveClip):
            return self.clip.start
        if isinstance(self.clip, tuple):
            return math.sqrt(sum(norm * norm for norm in self.clip))
        return float(self.clip)

    def layer_clips(self, tensors: int) -> list[float]:
        """One norm per parameter tensor whose root of summed squares is `start`."""
        if isinstance(self.clip, tuple):
            if len(self.clip) != tensors:
                raise Misuse(
                    f"expected {tensors} clip norms, one per trainable parameter tensor, got {len(self.clip)}"
                )
            return [float(norm) for norm in self.clip]
        return [self.start / math.sqrt(tensors)] * tensors
