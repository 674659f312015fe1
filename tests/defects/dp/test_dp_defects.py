"""Every broken variant is caught, every sound layer passes, by the same checks at the same error rates.

False alarms: each check has 1e-11. Power: above 0.99 for each variant, by `test_power` here (slow), and in
docs/dp-audit.md by formula.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dp import ClientDP, DistributedDP, LocalDP
from dp.accountants import epsilon
from dp.audit import Rehearsal, Verdict, audit_layer, audit_sum, check_sampling
from dp.event_json import from_fact
from dp.mechanisms import poisson_sample
from dp.mechanisms.sampling import fixed_sample
from dp.sample.loader import PoissonBatches
from protocols.layers import RoundFacts, RunFacts
from protocols.randomness import SystemRandom
from tests.defects.dp import broken, rig

RANDOM = SystemRandom()
LAYERS = {
    "client-dp": (rig.sound_client, ClientDP, broken.client_clipped_by, broken.client_noise),
    "local-dp": (rig.sound_local, LocalDP, broken.local_clipped_by, broken.local_noise),
    "distributed-dp": (
        rig.sound_distributed,
        DistributedDP,
        broken.distributed_clipped_by,
        broken.distributed_noise,
    ),
}
CHECKS = (rig.noise_verdict, rig.reach_verdict, rig.fresh_verdict, rig.unseeded_verdict)


def layer_cases() -> dict[str, Callable[[], Verdict]]:
    cases: dict[str, Callable[[], Verdict]] = {}
    for name, (sound, kind, clipped_by, noise) in LAYERS.items():
        for defect, how in (
            ("no clip", broken.unclipped),
            ("clip per tensor", broken.per_tensor),
            ("rank 0 skipped", broken.rank_0_skipped),
        ):
            cases[f"{name}: {defect}"] = partial(rig.reach_verdict, partial(sound, kind=clipped_by(how)))
        for defect, factor in (("half noise", 0.5), ("10 % too little noise", 0.9)):
            cases[f"{name}: {defect}"] = partial(rig.noise_verdict, partial(sound, kind=noise(factor)))
        replayed = broken.drawing_from(kind, broken.by_replay)
        seeded = broken.drawing_from(kind, broken.by_seed)
        cases[f"{name}: reused noise"] = partial(rig.fresh_verdict, partial(sound, kind=replayed))
        cases[f"{name}: seeded noise"] = partial(rig.unseeded_verdict, partial(sound, kind=seeded))
    cases["distributed-dp: noise from too many expected clients"] = partial(
        rig.noise_verdict, partial(rig.sound_distributed, kind=broken.TooManyExpected)
    )
    return cases


def sample_cases() -> dict[str, Callable[[], Verdict]]:
    def with_method(name: str, method: object, verdict: Callable[[], Verdict]) -> Callable[[], Verdict]:
        def run() -> Verdict:
            with broken.optimizer_with(name, method):
                return verdict()

        return run

    return {
        "sample-dp: no clip": with_method("_factors", broken.no_clip, rig.sample_reach_verdict),
        "sample-dp: clip per tensor": with_method(
            "_factors", broken.clip_each_tensor, rig.sample_reach_verdict
        ),
        "sample-dp: half noise": with_method("_noise", broken.weaker_noise(0.5), rig.sample_noise_verdict),
        "sample-dp: 10 % too little noise": with_method(
            "_noise", broken.weaker_noise(0.9), rig.sample_noise_verdict
        ),
        "sample-dp: reused noise": with_method("_noise", broken.kept_noise, rig.sample_fresh_verdict),
        "sample-dp: seeded noise": with_method("_noise", broken.torch_noise, rig.sample_unseeded_verdict),
    }


POPULATION, RATE, ROUNDS = 2000, 0.1, 100
SAMPLERS: dict[str, Callable[[], list[np.ndarray]]] = {
    "everyone every time": lambda: [np.arange(POPULATION)] * ROUNDS,
    "shuffled epochs": lambda: [
        part
        for _ in range(ROUNDS // 10)
        for part in np.split(np.random.default_rng().permutation(POPULATION), 10)
    ],
    "fixed size": lambda: [fixed_sample(RANDOM, POPULATION, 200) for _ in range(ROUNDS)],
    "one sample kept": lambda: [poisson_sample(RANDOM, POPULATION, RATE)] * ROUNDS,
}


def sampling_cases() -> dict[str, Callable[[], Verdict]]:
    def run(rounds: Callable[[], list[np.ndarray]]) -> Verdict:
        return check_sampling(rounds(), POPULATION, RATE, rig.ALARM)

    return {
        f"amplification without sampling: {name}": partial(run, rounds) for name, rounds in SAMPLERS.items()
    }


CASES = {**layer_cases(), **sample_cases(), **sampling_cases()}


@pytest.mark.parametrize("name", CASES)
def test_the_defect_is_caught(name: str) -> None:
    verdict = CASES[name]()
    assert not verdict.passed, f"{name} passed: {verdict}"


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_sound_layer_passes(name: str, check: Callable[[rig.Make], Verdict]) -> None:
    verdict = check(LAYERS[name][0])
    assert verdict.passed, f"{name} failed: {verdict}"


def test_sound_skellam_noise_passes() -> None:
    def make(multiplier: float):
        return DistributedDP(
            noise_multiplier=multiplier, clip=rig.CLIP, min_survivors=rig.SURVIVORS, noise="skellam"
        )

    assert rig.noise_verdict(make).passed
    assert rig.unseeded_verdict(make).passed


@pytest.mark.parametrize(
    "check",
    [
        rig.sample_noise_verdict,
        rig.sample_reach_verdict,
        rig.sample_fresh_verdict,
        rig.sample_unseeded_verdict,
    ],
)
def test_sound_private_training_passes(check: Callable[[], Verdict]) -> None:
    verdict = check()
    assert verdict.passed, verdict


def test_the_batches_of_private_training_are_poisson_samples() -> None:
    batches = PoissonBatches(POPULATION, RATE, ROUNDS, RANDOM)
    verdict = check_sampling([np.array(batch) for batch in batches], POPULATION, RATE, rig.ALARM)
    assert verdict.passed, verdict


@pytest.mark.parametrize("name", LAYERS)
def test_the_measured_bound_lies_below_the_stated_epsilon(name: str) -> None:
    kinds = {
        "client-dp": ClientDP(noise_multiplier=0.5),
        "local-dp": LocalDP(noise_multiplier=0.5),
        "distributed-dp": DistributedDP(noise_multiplier=0.5, min_survivors=400),
    }
    report = audit_layer(kinds[name], clients=400, norm=5.0, guesses=100)
    assert report.sound
    assert 0.5 < report.measured.epsilon < report.stated
    assert "zero-out" in str(report)


def claimed_amplification_is_refuted() -> bool:
    """One of 5,000 clients is claimed to take part in a round; in truth these 1,000 always do."""
    clients, multiplier = 1000, 1.0
    layer = ClientDP(noise_multiplier=multiplier, amplify=True)
    run = RunFacts(1, clients * 5000, clients * 5000, sampling="poisson", rate=0.0002, dimension=clients)
    claimed = layer.events(RoundFacts(run, 1, ("a",), bytes(32)), ("a",))
    stated = epsilon([from_fact(fact) for fact in claimed], 1e-10, "pld")
    rehearsal = Rehearsal(ClientDP(noise_multiplier=multiplier), clients, clients)
    measured = audit_sum(rehearsal.release, clients, 5.0, delta=1e-10, random=RANDOM, guesses=300, alarm=1e-8)
    return measured.refutes(stated)


def test_an_audit_refutes_amplification_that_did_not_happen() -> None:
    assert claimed_amplification_is_refuted()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_power(name: str) -> None:
    """300 tries, none missed: power of at least 0.99 with confidence 0.95 (0.99^300 = 0.049)."""
    assert all(not CASES[name]().passed for _ in range(300))


@pytest.mark.slow
def test_power_of_the_audit_against_claimed_amplification() -> None:
    assert all(claimed_amplification_is_refuted() for _ in range(300))
