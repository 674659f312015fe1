"""Exactness as a property: any cohort, width and dimension, vectors at the ends of their bound included."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from he.ckks.ciphertexts import Adder, encrypt, encrypt_seeded, open_sum
from he.ckks.coefficients import gather, spread
from he.ckks.keys import Context
from he.ckks.parameters import choose
from protocols.randomness import SystemRandom

RANDOM = SystemRandom()


@settings(max_examples=40, deadline=None)
@given(
    clients=st.integers(1, 12),
    present=st.integers(1, 12),
    bits=st.integers(0, 59),
    dimension=st.integers(1, 3000),
    symmetric=st.booleans(),
    source=st.integers(0, 2**32 - 1),
)
def test_every_sum_is_exact(
    clients: int, present: int, bits: int, dimension: int, symmetric: bool, source: int
) -> None:
    draw, bound = np.random.default_rng(source), (1 << bits) - 1
    p = choose(clients, dimension, bound, symmetric)
    context, adder, total = Context.make(p), Adder.empty(p), np.zeros(dimension, np.int64)
    for _ in range(min(present, clients)):
        values = draw.integers(-bound, bound, dimension, endpoint=True)
        ends = draw.integers(0, 3, dimension)
        values = np.where(ends == 0, values, np.where(ends == 1, bound, -bound))
        total += values
        x = spread(values, p)
        adder.add(encrypt_seeded(x, p, context.secret) if symmetric else encrypt(x, p, context.public_key()))
    opened = open_sum(adder.finish(), p, min(present, clients), context.secret)
    assert np.array_equal(gather(opened, p, 0), total)
