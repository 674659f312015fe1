"""Ciphertexts of a whole vector: encrypt, add, open. What does not belong here: who does it, when, and
whether they may.

A ciphertext of zero comes from SEAL; the scaled message is added to its first half, as SEAL's own encoder
and encryptor would do, but with exact integers in every coefficient. The low bits that cannot matter
(`CKKSParameters.dropped`) are left out, which any party could do. Adding is adding words; it needs neither
SEAL nor a key.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from he.ckks.coefficients import scaled
from he.ckks.parameters import CKKSParameters
from he.ckks.seal import SEED_BYTES, ring
from he.residues import BLOCK, Words, pack, shift_up, unpack_below
from protocols.codec import Record
from protocols.errors import WireError, refuse
from protocols.summation import centred


@dataclass(frozen=True)
class Upload(Record):
    """One client's ciphertexts. first: first halves, packed. second: second halves, packed, or their seeds. checks: the
    padded words of its check value.
    """

    first: bytes
    second: bytes
    checks: bytes


@dataclass(frozen=True)
class Sum(Record):
    """The words of several uploads added, packed in `width` bits each; those of check values modulo 2^64."""

    width: tuple[int, int]
    first: bytes
    second: bytes
    checks: bytes


def encrypt(
    coefficients: NDArray[np.int64], parameters: CKKSParameters, public: Words, pad: Words | None = None
) -> Upload:
    """Encrypt under a public key ([2, N] residues). pad: residues to add, one per coefficient (None: zeros)."""
    first, second = [], []
    for count, words in _blocks(coefficients, parameters, pad):
        zeros = ring(parameters.degree, parameters.modulus).zeros(public, count)
        first.append(_with_message(zeros[:, 0], words, parameters))
        second.append(pack(zeros[:, 1] >> np.uint64(parameters.dropped[1]), parameters.widths[1]))
    return Upload(b"".join(first), b"".join(second), bytes(8 * parameters.checks))


def encrypt_seeded(
    coefficients: NDArray[np.int64], parameters: CKKSParameters, secret: bytes, pad: Words | None = None
) -> Upload:
    """Encrypt under the secret key; a fresh seed stands for each second half. pad: as for `encrypt`."""
    first, second = [], []
    for count, words in _blocks(coefficients, parameters, pad):
        zeros, seeds = ring(parameters.degree, parameters.modulus).seeded_zeros(secret, count)
        first.append(_with_message(zeros, words, parameters))
        second.append(seeds.tobytes())
    return Upload(b"".join(first), b"".join(second), bytes(8 * parameters.checks))


def _blocks(
    coefficients: NDArray[np.int64], parameters: CKKSParameters, pad: Words | None
) -> Iterator[tuple[int, Words]]:
    """Yield (ciphertexts, scaled and padded) of what fits in the processor's caches: one block of packed words."""
    for at in range(0, len(coefficients), BLOCK):
        words = scaled(coefficients[at : at + BLOCK], parameters)
        if pad is not None:
            words += pad[at : at + BLOCK]  # two residues below 2^60, and a third to come
        yield -(-len(words) // parameters.degree), words


def _with_message(zeros: Words, message: Words, parameters: CKKSParameters) -> bytes:
    words = zeros.ravel()[: len(message)] + message
    np.mod(words, np.uint64(parameters.modulus), out=words)
    return pack(words >> np.uint64(parameters.dropped[0]), parameters.widths[0])


@dataclass(frozen=True, eq=False)
class Adder(Record):
    """Adds uploads as they arrive, whoever they are from; a part of the server's state.

    first, second: summed words, two per coefficient however many clients. seeds: what stands for second
    halves, per upload.
    """

    parameters: CKKSParameters
    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    checks: NDArray[np.uint64]
    seeds: list[bytes]

    @classmethod
    def empty(cls, parameters: CKKSParameters) -> Self:
        size = 0 if parameters.symmetric else parameters.ciphertexts * parameters.degree
        first, second, checks = (
            np.zeros(n, np.uint64) for n in (parameters.coefficients, size, parameters.checks)
        )
        return cls(parameters, first, second, checks, [])

    def add(self, upload: Upload) -> None:
        """Add one upload in place. Raises WireError, changing nothing, for one of another length or with
        words out of range.
        """
        p = self.parameters
        first, checks = self._words(upload.first, len(self.first), 0), check_words(upload.checks, p)
        if p.symmetric:
            if len(upload.second) != p.ciphertexts * SEED_BYTES:
                raise WireError(
                    f"expected {p.ciphertexts} seeds of {SEED_BYTES} bytes, got {len(upload.second)} bytes"
                )
            self.seeds.append(upload.second)
        else:
            self._into(self.second, self._words(upload.second, len(self.second), 1), 1)
        self._into(self.first, first, 0)
        np.add(self.checks, checks, out=self.checks)

    def _words(self, data: bytes, count: int, half: int) -> Words:
        p = self.parameters
        return unpack_below(data, count, p.widths[half], ((p.modulus - 1) >> p.dropped[half]) + 1)

    def _into(self, total: Words, words: Words, half: int) -> None:
        np.add(total, words, out=total)
        # whole residues stay reduced; shortened ones have room for every client
        if not self.parameters.dropped[half]:
            np.mod(total, np.uint64(self.parameters.modulus), out=total)

    def finish(self) -> Sum:
        """Return the sum of at least one upload, in as many bits as its largest words need."""
        p, second = self.parameters, self.second
        if p.symmetric:
            tables = [np.frombuffer(s, np.uint8).reshape(p.ciphertexts, SEED_BYTES) for s in self.seeds]
            second = ring(p.degree, p.modulus).expanded_sum(np.stack(tables)).ravel()
        widths = tuple(max(1, int(words.max()).bit_length()) for words in (self.first, second))
        return Sum(
            (widths[0], widths[1]),
            pack(self.first, widths[0]),
            pack(second, widths[1]),
            self.checks.tobytes(),
        )


def check_words(data: bytes, parameters: CKKSParameters) -> Words:
    """Return the words of (a sum of) check values. Raises WireError for another number of them."""
    if len(data) != 8 * parameters.checks:
        raise WireError(f"expected a check value of {8 * parameters.checks} bytes, got {len(data)}")
    return np.frombuffer(data, np.dtype("<u8"))


def open_sum(
    total: Sum, parameters: CKKSParameters, clients: int, secret: bytes, pads: Iterable[Words] = ()
) -> NDArray[np.int64]:
    """Decrypt the sum of `clients` uploads, less their pads, to its exact coefficients, int64
    [parameters.coefficients].

    Raises WireError for a sum of another shape; ProtocolViolation if the noise, a digit or the padding is
    out of the proven bounds: then it is not the sum of well-formed ciphertexts under this key.
    """
    p = parameters
    size = p.ciphertexts * p.degree
    first = np.zeros(size, np.uint64)
    first[: p.coefficients] = _restored(total.first, total.width[0], p.coefficients, clients, 0, p)
    for pad in pads:
        first[: p.coefficients] += np.uint64(p.modulus) - pad
        np.mod(first, np.uint64(p.modulus), out=first)
    second = _restored(total.second, total.width[1], size, clients, 1, p)
    rows = [words.reshape(p.ciphertexts, p.degree) for words in (first, second)]
    if not rows[1].any(axis=1).all():
        raise refuse("a ciphertext whose second half is zero is none")
    phase = centred(ring(p.degree, p.modulus).phases(secret, *rows).ravel()[: p.coefficients], p.modulus)
    sums = (phase + p.scale // 2) // p.scale
    noise = np.abs(phase - sums * p.scale).max()
    if (
        noise > (clients * p.noise if p.worst_case else p.sum_noise)
        or np.abs(sums).max() > clients * p.digit_bound
    ):
        raise refuse("what was sent to be opened is not a sum of this session's ciphertexts")
    return np.asarray(sums, np.int64)


def _restored(data: bytes, width: int, count: int, clients: int, half: int, p: CKKSParameters) -> Words:
    """Return residues modulo q from summed words, the middle of the dropped bits put back."""
    dropped = p.dropped[half]
    top = (p.modulus - 1) >> dropped
    largest = top * clients if dropped else top
    if not 1 <= width <= largest.bit_length():
        raise WireError(f"expected words of at most {largest.bit_length()} bits, got {width}")
    words = shift_up(unpack_below(data, count, width, largest + 1), dropped, p.modulus)
    if dropped:
        words = (words + np.uint64(clients * (1 << (dropped - 1)) % p.modulus)) % np.uint64(p.modulus)
    return words
