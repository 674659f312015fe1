"""An example is priced once: where it is seen to be held twice, a layer that protects single examples is refused."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
)

from dp import ClientDP, DistributedDP, SampleDP
from fl import Federation, FedSGD
from fl.disjoint import require_disjoint
from protocols.errors import Misuse

X, Y = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)), torch.arange(40) % 2
WHOLE = TensorDataset(X, Y)


def part(first: int, last: int) -> Subset[Any]:
    return Subset(WHOLE, range(first, last))


class Turned(Dataset[Any]):
    """A wrapper, as transforms are."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, place: int) -> Any:
        x, y = self.source[place]
        return -x, y


class Annotated(Turned):
    """Inputs that everybody has, and labels of one's own."""

    def __init__(self, source: Any, labels: list[int]) -> None:
        super().__init__(source)
        self.labels = labels


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(LISTED)


STACK: Any = StackDataset  # tensors have all that it asks for
LISTED = [(x, int(y)) for x, y in zip(X, Y, strict=True)]
ROWS, STREAM = X.numpy().copy(), Stream()


def rows(first: int, last: int) -> TensorDataset:
    return TensorDataset(torch.from_numpy(ROWS[first:last]), Y[first:last])


TWICE: dict[str, tuple[Any, Any]] = {
    "a data set": (WHOLE, WHOLE),
    "subsets that overlap": (part(0, 20), part(19, 40)),
    "an index from the end": (Subset(WHOLE, [0, -1]), part(20, 40)),
    "a subset of a subset": (part(0, 20), Subset(part(10, 40), range(5, 12))),
    "one of several": (part(0, 20), ConcatDataset([part(20, 30), part(5, 6)])),
    "rows of one tensor": (TensorDataset(X[:20], Y[:20]), TensorDataset(X[10:], Y[10:])),
    "rows of one array": (rows(0, 20), rows(19, 40)),
    "another order of tensors": (TensorDataset(X, Y), TensorDataset(Y, X)),
    "tensors stacked": (STACK(X, Y), STACK(x=X, y=Y)),
    "wrappers around one data set": (Turned(part(0, 20)), Turned(part(19, 40))),
    "a wrapper beside what it holds": (Turned(WHOLE), part(39, 40)),
    "items of one list": (LISTED[:20], LISTED[19:]),
    "the items of a tensor": (X, TensorDataset(X[39:])),
    "a client's own": (Subset(WHOLE, [1, 2, 3, 2]), part(20, 40)),
    "a client's own, joined": (ConcatDataset([part(0, 9), part(0, 9)]), part(20, 40)),
}
ONCE: dict[str, tuple[Any, Any]] = {
    "halves": (part(0, 20), part(20, 40)),
    "rows of one tensor": (TensorDataset(X[::2], Y[::2]), TensorDataset(X[1::2], Y[1::2])),
    "equal values": (TensorDataset(X, Y), TensorDataset(X.clone(), Y)),
    "joined": (ConcatDataset([part(0, 9), part(9, 12)]), part(20, 40)),
    "rows of one array": (rows(0, 20), rows(20, 40)),
    "shared inputs, own labels": (TensorDataset(X, Y), TensorDataset(X, 1 - Y)),
    "a wrapper's own labels": (Annotated(WHOLE, [0] * 40), Annotated(WHOLE, [0] * 40)),
    "one input for all": (
        TensorDataset(X[:1].expand(9, 3), Y[:9]),
        TensorDataset(X[:1].expand(9, 3), Y[9:18]),
    ),
    "one input and nothing else": (TensorDataset(X[:1].expand(9, 3)), TensorDataset(X[:1].expand(9, 3))),
    "columns": (TensorDataset(X[:, :2], Y), TensorDataset(X[:, 2:], Y)),
    "equal items of lists": (LISTED[:20], [(x, y) for x, y in LISTED]),
    "time comes first": (TensorDataset(X.t()[:, :20].t(), Y[:20]), TensorDataset(X.t()[:, 20:].t(), Y[20:])),
    "nothing beside all": (ConcatDataset([Subset(WHOLE, [])]), WHOLE),
}
STREAMS: dict[str, tuple[Any, Any]] = {  # their length is not told
    "one that is iterated": (DataLoader(STREAM), DataLoader(STREAM)),
    "one in a chain": (DataLoader(STREAM), DataLoader(ChainDataset([STREAM]))),
    "a list of batches": (LISTED, LISTED),
    "a batch in two lists": ([LISTED[0], LISTED[1]], [LISTED[1]]),
}


def step(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def loss(model: Any, batch: Any) -> Any:
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


def federation(layer: Any, held: tuple[Any, Any]) -> Federation:
    return Federation(
        lambda: torch.nn.Linear(3, 2),
        {name: DataLoader(data, 8) for name, data in zip(("ward-1", "ward-2"), held, strict=True)},
        step,
        FedSGD() if isinstance(layer, DistributedDP) else None,
        privacy=[layer],
        loss=loss,
    )


def layers() -> list[Any]:
    shares = DistributedDP(noise_multiplier=4.0, unit="example", sample_rate=0.5, examples=40)
    return [SampleDP(noise_multiplier=4.0), shares]


@pytest.mark.parametrize("held", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.name)
def test_examples_that_are_seen_to_be_held_twice_are_refused(layer: Any, held: tuple[Any, Any]) -> None:
    """Two clients with one data set: 2.81 was printed, the price of one client's steps; both together cost 3.90."""
    with pytest.raises(Misuse, match=r"'ward-1'.*(twice|'ward-2').* torch.utils.data.Subset"):
        federation(layer, held)


@pytest.mark.parametrize("held", ONCE.values(), ids=ONCE)
def test_examples_that_each_are_held_once_are_taken(held: tuple[Any, Any]) -> None:
    for layer in layers():
        assert federation(layer, held).setup.names == ("ward-1", "ward-2")


@pytest.mark.parametrize("held", STREAMS.values(), ids=STREAMS)
def test_loaders_of_no_length_are_one_object_or_not(held: tuple[Any, Any]) -> None:
    with pytest.raises(Misuse, match="'a' and 'b' hold the same example"):
        require_disjoint("layer", {"a": held[0], "b": held[1]})
    require_disjoint("layer", {"a": held[0], "b": DataLoader(Stream())})


def test_what_has_no_memory_or_no_numbers_is_taken() -> None:
    subset: Any = Subset
    sparse, named = TensorDataset(X.to_sparse()), subset({"one": 1, "two": 2}, ["one"])
    meta = [TensorDataset(torch.zeros(9, 3, device="meta")) for _ in range(2)]
    pairs = [(sparse, TensorDataset(X)), (named, sparse), (meta[0], meta[1]), (subset([], [0]), named)]
    refused = []
    for one, other in pairs:
        try:
            require_disjoint("layer", {"a": DataLoader(one), "b": DataLoader(other)})
        except Misuse as error:
            refused.append(str(error))
    assert refused == []


def test_a_client_is_the_unit_of_other_layers() -> None:
    assert federation(ClientDP(noise_multiplier=4.0), (WHOLE, WHOLE)).setup.names == ("ward-1", "ward-2")


def test_the_statement_says_what_cannot_be_seen() -> None:
    for layer in layers():
        statement = federation(layer, ONCE["halves"]).statement()
        assert any("an example is one client's and one item of its data" in said for said in statement.layers)
