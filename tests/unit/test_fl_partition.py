"""Partitions: every example has at most one owner, everyone has some, equal seeds agree, the impossible is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.data import DataSet
from fl.data.partition import ClassesPerClient, Dirichlet, Iid, Natural, Partition, partition
from protocols.errors import Misuse


def toy(labels: np.ndarray, owners: np.ndarray | None = None, names: tuple[str, ...] = ()) -> DataSet:
    x = np.zeros((len(labels), 1), np.float32)
    y = labels.astype(np.int64)
    return DataSet("toy", x, y, x, y, int(y.max()) + 1, "memory", "", owners, owners, names)


EVEN = toy(np.arange(600) % 10)

rules = st.one_of(
    st.builds(Iid),
    st.builds(Dirichlet, alpha=st.sampled_from([1e-300, 0.01, 0.1, 0.5, 1.0, 100.0])),
    st.builds(ClassesPerClient, per_client=st.integers(1, 10)),
)


@settings(max_examples=60, deadline=None)
@given(rule=rules, clients=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_every_example_has_one_owner_and_every_client_has_some(
    rule: Partition, clients: int, seed: int
) -> None:
    if isinstance(rule, ClassesPerClient) and rule.per_client * clients < 10:
        with pytest.raises(Misuse, match="hold at most"):
            rule.split(EVEN, clients, seed)
        return
    split = rule.split(EVEN, clients, seed)
    assert len(split) == clients
    assert sorted(np.concatenate(list(split.values()))) == list(range(600))
    assert min(len(indices) for indices in split.values()) >= rule.minimum


@pytest.mark.parametrize("rule", [Iid(), Dirichlet(0.3), ClassesPerClient(2)])
def test_equal_seeds_agree_and_others_do_not(rule: Partition) -> None:
    first, again, other = (rule.split(EVEN, 8, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[client], again[client]) for client in first)
    assert any(not np.array_equal(first[client], other[client]) for client in first)


@pytest.mark.parametrize("per_client", [1, 2, 5, 10])
def test_classes_per_client_are_exactly_so_many(per_client: int) -> None:
    split = ClassesPerClient(per_client).split(EVEN, 20, seed=3)
    assert {len(np.unique(EVEN.y_train[indices])) for indices in split.values()} == {per_client}


def test_a_small_alpha_makes_clients_more_different() -> None:
    def largest_share(alpha: float) -> float:
        split = Dirichlet(alpha).split(EVEN, 10, seed=5)
        tables = [np.bincount(EVEN.y_train[i], minlength=10) / len(i) for i in split.values()]
        return float(np.mean([table.max() for table in tables]))

    assert largest_share(0.1) > largest_share(1.0) > largest_share(100.0)


def test_iid_sizes_differ_by_at_most_one() -> None:
    sizes = [len(indices) for indices in Iid().split(EVEN, 7, seed=0).values()]
    assert max(sizes) - min(sizes) <= 1


def test_a_minimum_is_kept_by_taking_from_the_largest() -> None:
    split = Dirichlet(0.01, minimum=50).split(EVEN, 10, seed=0)
    assert min(len(indices) for indices in split.values()) >= 50


def test_natural_clients_keep_their_names_and_examples() -> None:
    owners = np.array([0] * 5 + [1] * 1 + [2] * 4)
    data = toy(np.arange(10) % 2, owners, ("a", "b", "c"))
    split = Natural().split(data, None, seed=0)
    assert {name: list(i) for name, i in split.items()} == {"a": [0, 1, 2, 3, 4], "c": [6, 7, 8, 9]}
    assert len(Natural().split(data, 1, seed=0)) == 1
    with pytest.raises(Misuse, match="2 natural clients"):
        Natural().split(data, 3, seed=0)


@pytest.mark.parametrize(
    ("rule", "clients", "says"),
    [
        ("natural", None, "no natural clients"),
        ("iid", None, "say how many clients"),
        ("iid", 0, "At least 1"),
        ("iid", 301, "too few"),
        ("dirichlet:alpha=0", 4, "positive"),
        ("dirichlet:alpha=inf", 4, "positive"),
        ("dirichlet:minimum=200", 4, "too few"),
        ("iid:minimum=0", 4, "at least 1"),
        ("classes:per_client=11", 4, "per_client"),
        ("classes:per_client=0", 4, "per_client"),
        ("classes:per_client=2", 4, "hold at most"),
        ("sorted", 4, "No partition is named"),
    ],
)
def test_the_impossible_is_refused(rule: str, clients: int | None, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        partition(EVEN, rule, clients)


def test_few_of_a_class_for_many_clients_is_refused() -> None:
    skewed = toy(np.array([0] * 500 + [1] * 3))
    with pytest.raises(Misuse, match="one would hold"):
        ClassesPerClient(1).split(skewed, 20, seed=0)
