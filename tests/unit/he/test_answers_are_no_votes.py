"""When a server could mix the parts of several sums, by linear algebra over every choice of lists for two clients.

docs/security.md claims: with k = t - c and h honest decryptors, exactly where 2h >= 3k. So counting answers would be
sound for fewer corrupt decryptors than 2t > N + c says; a vote before anything is decrypted is sound for all c < t.
"""

from itertools import product

import pytest

P = (1 << 31) - 1
Row = list[int]


def reduced(row: Row, basis: list[tuple[Row, int]]) -> Row:
    for other, pivot in basis:
        if row[pivot]:
            factor = row[pivot]
            row = [(x - factor * y) % P for x, y in zip(row, other, strict=True)]
    return row


def spanned(rows: list[Row]) -> list[tuple[Row, int]]:
    basis: list[tuple[Row, int]] = []
    for row in rows:
        left = reduced(row, basis)
        pivot = next((i for i, x in enumerate(left) if x), None)
        if pivot is not None:
            inverse = pow(left[pivot], -1, P)
            basis.append(([x * inverse % P for x in left], pivot))
    return basis


def mixes(n: int, t: int, corrupt: int) -> bool:
    """Whether some lists of two clients, one per honest decryptor, open anything but multiples of one list's sum.

    A decryptor's part of a sum is its evaluation of the sharing polynomial, times who is in its list; the corrupt ones
    compute theirs of every client. Opened is what combines to the polynomial's value at 0.
    """

    def at(x: int) -> Row:
        return [pow(x, power, P) for power in range(t)]

    def both(first: bool, second: bool, x: int) -> Row:
        return [first * value for value in at(x)] + [second * value for value in at(x)]

    free = [both(*who, x) for x in range(n - corrupt + 1, n + 1) for who in ((True, False), (False, True))]
    targets = {who: both(*who, 0) for who in ((True, False), (False, True), (True, True))}
    for lists in product(targets, repeat=n - corrupt):
        basis = spanned(free + [both(*who, x) for x, who in enumerate(lists, start=1)])
        single = [targets[who] for who in ((True, False), (False, True))]
        opened = len(basis) + 2 - len(spanned([row for row, _ in basis] + single))
        sums = [who for who, target in targets.items() if not any(reduced(target, basis))]
        if opened == 2 or (opened == 1 and not sums):
            return True
    return False


@pytest.mark.parametrize("n", range(1, 6))
def test_parts_mix_exactly_from_three_halves_of_what_an_opening_needs(n: int) -> None:
    for t in range(1, n + 1):
        for corrupt in range(t):
            assert mixes(n, t, corrupt) == (2 * (n - corrupt) >= 3 * (t - corrupt)), (t, corrupt)


def test_counting_answers_would_not_do_for_two_of_three() -> None:
    n, t, corrupt = 3, 2, 0
    assert 2 * t > n + corrupt
    assert mixes(n, t, corrupt)
