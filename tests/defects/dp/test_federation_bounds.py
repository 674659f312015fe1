"""Whole federations: the measured lower bound lies under the printed epsilon; federations that lie are found out.

False alarms: 1e-6 for each run. `python -m benchmarks dp --case federations` prints the same for each layer.
"""

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.dp.federations import Run, by_clients, by_examples, cases
from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from tests.defects.dp import broken

pytestmark = pytest.mark.filterwarnings("ignore")
COUNT = 200
QUICK = (
    "client-dp, resumed",
    "client-dp, amplified",
    "distributed-dp, abandoned rounds",
    "local-dp, abandoned rounds",
    "sample-dp, sampled batches",
    "sample-dp, resumed",
    "client-dp, amplified, fixed-size choice",
    "client-dp, amplified, drop-outs",
    "distributed-dp, sampled examples, drop-outs",
    "distributed-dp, sampled examples, abandoned rounds",
    "local-dp, sampled",
)
WIDE: dict[str, Any] = {"noise_multiplier": 9.0, "clip": 1.0}
"""Accounted at an epsilon of about one: a run without noise or clip shows more."""


def no_noise(kind: Callable[[float], type[Any]]) -> Callable[[], list[Any]]:
    return lambda: [kind(0.01)(**WIDE)]


def unclipped_examples() -> Run:
    with broken.optimizer_with("_factors", broken.no_clip):
        return by_examples(lambda: [SampleDP(**WIDE, batch_size=COUNT, examples=COUNT)], COUNT, norm=80.0)


LYING: dict[str, Callable[[], Run]] = {
    "client-dp without noise": lambda: by_clients(no_noise(broken.client_noise), COUNT),
    "distributed-dp without a clip, drop-outs": lambda: by_clients(
        lambda: [broken.distributed_clipped_by(broken.unclipped)(**WIDE, min_survivors=COUNT // 2)],
        COUNT, dropout=0.1, norm=40.0,
    ),
    "sample-dp without a clip": unclipped_examples,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in cases(1.0, COUNT)]
)
def test_a_finished_run_shows_less_than_it_printed(name: str) -> None:
    run = cases(1.0, COUNT)[name]()
    assert run.sound, run
    if "abandoned" in name:
        assert run.abandoned


@pytest.mark.slow
@pytest.mark.parametrize("name", cases(0.5, COUNT))
def test_with_little_noise_the_bound_is_above_zero_and_below_what_was_printed(name: str) -> None:
    alone = name.startswith("local-dp")  # whose clients' whole noises add up
    run = cases(0.5 / COUNT**0.5 if alone else 0.5, COUNT)[name]()
    assert run.sound, run
    if not any(word in name for word in ("amplified", "sampled", "drop-outs", "abandoned", "fixed-size")):
        assert run.measured.epsilon > 0.2, run


@pytest.mark.parametrize("name", LYING)
def test_a_run_that_lies_is_found_out(name: str) -> None:
    """One run in about twenty passes by chance (measured); eight in a row would be one in ten thousand million."""
    assert any(not LYING[name]().sound for _ in range(8))


def test_the_sound_layers_pass_where_the_lying_ones_do_not() -> None:
    for layer in (ClientDP, LocalDP):
        assert by_clients(lambda kind=layer: [kind(**WIDE)], COUNT).sound  # type: ignore[misc]
    assert by_clients(lambda: [DistributedDP(**WIDE, min_survivors=COUNT // 2)], COUNT, dropout=0.1).sound
