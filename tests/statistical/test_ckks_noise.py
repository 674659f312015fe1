"""What the noise bounds assume of SEAL, measured. A test here fails by chance in less than one run of 10^9."""

import multiprocessing
import os

import numpy as np
import pytest

from he.ckks.ciphertexts import encrypt, encrypt_seeded
from he.ckks.keys import Context
from he.ckks.parameters import CKKSParameters, choose
from he.ckks.seal import ring
from protocols.summation import centred

COUNT = 100


@pytest.fixture(scope="module")
def context() -> Context:
    return Context.make(choose(10, 1000, (1 << 23) - 1, False))


def phases(context: Context, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    p = context.parameters
    return centred(ring(p.degree, p.modulus).phases(context.secret, first, second), p.modulus)


def test_symmetric_errors_have_the_bound_and_the_variance(context: Context) -> None:
    """204,800 errors: the sample variance of 10.5 has a standard error of 0.033; 7 of them fail once in
    4e11 runs.
    """
    p = context.parameters
    made = ring(p.degree, p.modulus)
    first, seeds = made.seeded_zeros(context.secret, COUNT)
    errors = phases(context, first, made.expanded_sum(seeds[None]))
    assert np.abs(errors).max() <= 21
    assert abs(errors.var() - 10.5) < 7 * 10.5 * np.sqrt(2 / errors.size)
    assert abs(errors.mean()) < 7 * np.sqrt(10.5 / errors.size)


def test_public_key_noise_has_the_bound_and_the_variance(context: Context) -> None:
    """Given the key, the variance is 10.5 (1 + |s|^2) + 2/3 |e|^2; over keys |s|^2 is N 2/3 with spread
    sqrt(2N)/3, |e|^2 is 10.5 N with spread 10.5 sqrt(2N). Seven of both spreads and 3 % for the sample bound
    the ratio to its mean.
    """
    p = context.parameters
    zeros = ring(p.degree, p.modulus).zeros(context.public_key(), COUNT)
    noise = phases(context, np.ascontiguousarray(zeros[:, 0]), np.ascontiguousarray(zeros[:, 1]))
    n = p.degree
    mean = 10.5 * (1 + 2 * n / 3) + 2 / 3 * 10.5 * n
    spread = 7 * (10.5 * np.sqrt(2 * n) / 3 + 2 / 3 * 10.5 * np.sqrt(2 * n))
    assert abs(noise.var() - mean) < spread + 0.03 * mean
    assert np.abs(noise).max() <= 21 * (1 + 2 * n)
    assert np.abs(noise).max() < 9 * np.sqrt(mean)  # far below the worst case, as the statistical bound says


def test_ciphertexts_of_equal_inputs_differ_everywhere(context: Context) -> None:
    p = context.parameters
    x = np.ones(p.coefficients, np.int64)
    for uploads in (
        [encrypt(x, p, context.public_key()) for _ in range(20)],
        [encrypt_seeded(x, seeded(p), context.secret) for _ in range(20)],
    ):
        for half in ("first", "second"):
            assert len({getattr(u, half) for u in uploads}) == 20


def seeded(p: CKKSParameters) -> CKKSParameters:
    from dataclasses import replace

    return replace(p, symmetric=True)


def test_halves_of_ciphertexts_look_uniform(context: Context) -> None:
    """Means and variances of residues / q against 1/2 and 1/12; 7 standard errors."""
    p = context.parameters
    zeros = ring(p.degree, p.modulus).zeros(context.public_key(), COUNT) / p.modulus
    for half in (zeros[:, 0], zeros[:, 1]):
        assert abs(half.mean() - 1 / 2) < 7 / np.sqrt(12 * half.size)
        assert abs(half.var() - 1 / 12) < 7 * np.sqrt(1 / 180 / half.size)


def _child(context_bytes: bytes, queue: "multiprocessing.SimpleQueue[bytes]") -> None:
    context = Context.load(context_bytes, "holder")
    x = np.zeros(context.parameters.coefficients, np.int64)
    queue.put(encrypt(x, context.parameters, context.public_key()).first)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_never_share_randomness(context: Context) -> None:
    x = np.zeros(context.parameters.coefficients, np.int64)
    seen = [encrypt(x, context.parameters, context.public_key()).first]
    method = multiprocessing.get_context("fork")
    queue = method.SimpleQueue()
    children = [method.Process(target=_child, args=(context.dump(secret=True), queue)) for _ in range(4)]
    for child in children:
        child.start()
    seen += [queue.get() for _ in children]
    for child in children:
        child.join(60)
    assert len(set(seen)) == 5
