"""The one place that talks to SEAL (through TenSEAL's bindings): keys, encryptions of zero, decryption, in
plain arrays.

What belongs here: polynomials go in and come out as uint64 arrays of residues modulo one prime, in
coefficient form. What does not: the message, its scale, noise bounds, wire formats. All cryptography is
SEAL's: key generation, sampling, encryption, decryption, number-theoretic transforms. Its randomness comes
from the operating system (/dev/urandom), freshly for every key and ciphertext.

SEAL reads and writes files only, so objects pass through an anonymous file in memory (a private temporary
file where the system has none). Bytes of other parties never reach SEAL's parsers: they are decoded
into residues below the modulus first.
"""

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import tenseal.sealapi as seal
from backports import zstd
from numpy.typing import NDArray

from protocols.errors import CapacityError, MissingExtra

Words = NDArray[np.uint64]
SEED_BYTES = 64
MAX_POLYNOMIALS = 16  # SEAL_CIPHERTEXT_SIZE_MAX
_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC, _UNCOMPRESSED, _ZSTD = 0xA15E, 0, 2
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")


class _Encoded(Protocol):
    """An object of SEAL that reads and writes files."""

    def load(self, context: seal.SEALContext, path: str) -> None: ...
    def save(self, path: str) -> None: ...


T = TypeVar("T", bound=_Encoded)


class _File:
    """A path that SEAL can open, and its content, read and replaced through one descriptor."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    def written_by(self, save: Callable[[str], None]) -> bytes:
        save(self.path)
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)

    def holding(self, data: bytes) -> str:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
        return self.path


@contextmanager
def _scratch() -> Iterator[_File]:
    """A file of this call alone, so that neither threads nor forked processes can mix ciphertexts up."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("ckks", os.MFD_CLOEXEC)
        try:
            yield _File(f"/proc/self/fd/{descriptor}", descriptor)
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:  # its mode is 0600
            yield _File(file.name, file.fileno())


def _saved(made: _Encoded) -> bytes:
    """Return SEAL's encoding of one of its objects."""
    with _scratch() as file:
        return file.written_by(made.save)


def _payload(data: bytes) -> bytes:
    """Return the body of an object that SEAL saved in this process."""
    magic, size, _, _, mode, _, total = _HEADER.unpack_from(data)
    if magic != _MAGIC or size != _HEADER.size or total != len(data) or mode not in (_UNCOMPRESSED, _ZSTD):
        raise MissingExtra(
            "this build of TenSEAL saves objects in another format: install tenseal>=0.3.16,<0.4"
        )
    body = data[_HEADER.size :]
    return body if mode == _UNCOMPRESSED else zstd.decompress(body)


class SealRing:
    """SEAL's CKKS over Z_q[X]/(X^N + 1) with one prime q: no key switching, no rescaling, sums only.

    degree: N, a power of two. modulus: a prime q = 1 mod 2N of at most 60 bits. SEAL itself refuses what
    its 128-bit table (the HomomorphicEncryption.org standard) does not allow. Raises CapacityError then.
    """

    def __init__(self, degree: int, modulus: int) -> None:
        self.degree, self.modulus = degree, modulus
        self._context = seal.SEALContext(self._parameters(), True, seal.SEC_LEVEL_TYPE.TC128)
        if not self._context.parameters_set():
            raise CapacityError(
                f"SEAL refuses N={degree}, q={modulus}: {self._context.parameters_error_message()}"
            )
        self._evaluator = seal.Evaluator(self._context)
        self._parms_id = struct.pack("<4Q", *self._context.first_parms_id())
        self._header = _saved(self._parameters())[:5]

    def _parameters(self) -> seal.EncryptionParameters:
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(self.degree)
        parameters.set_coeff_modulus([seal.Modulus(self.modulus)])
        return parameters

    # -- keys -----------------------------------------------------------------------------------------------------

    def new_secret(self) -> bytes:
        """Return a fresh ternary secret key in SEAL's encoding."""
        return self._secret_bytes(self._context)

    def secret_from_seed(self, seed: bytes) -> bytes:
        """Return the secret key that SEAL's generator makes from 64 uniform secret bytes; equal seeds,
        equal keys.

        Only the key is made from the seed: encryption always draws fresh randomness.
        """
        parameters = self._parameters()
        parameters.set_random_generator(seal.Blake2xbPRNGFactory(list(struct.unpack("<8Q", seed))))
        return self._secret_bytes(seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128))

    def _secret_bytes(self, context: seal.SEALContext) -> bytes:
        return _saved(seal.KeyGenerator(context).secret_key())

    def _loaded(self, made: T, data: bytes) -> T:
        """Return a SEAL object with what SEAL's encoding of it holds."""
        with _scratch() as file:
            made.load(self._context, file.holding(data))
        return made

    def _secret(self, data: bytes) -> seal.SecretKey:
        return self._loaded(seal.SecretKey(), data)

    def public_of(self, secret: bytes) -> Words:
        """Return a fresh public key as [2, N] residues (in SEAL's transformed order)."""
        key = seal.PublicKey()
        seal.KeyGenerator(self._context, self._secret(secret)).create_public_key(key)
        return _tail(_payload(_saved(key)), 2 * self.degree).reshape(2, self.degree)

    # -- encryption -----------------------------------------------------------------------------------------------

    def zeros(self, public: Words, count: int) -> Words:
        """Return `count` fresh encryptions of zero under a public key, [count, 2, N]."""
        key = self._loaded(seal.PublicKey(), self._blob(public, transformed=True))
        encryptor = seal.Encryptor(self._context, key)
        result = np.empty((count, 2, self.degree), np.uint64)
        ciphertext = seal.Ciphertext()
        with _scratch() as file:
            for i in range(count):
                encryptor.encrypt_zero(ciphertext)
                self._evaluator.transform_from_ntt_inplace(ciphertext)
                result[i] = self._read(file, ciphertext, 2)
        return result

    def seeded_zeros(self, secret: bytes, count: int) -> tuple[Words, NDArray[np.uint8]]:
        """Return `count` fresh symmetric encryptions of zero: first halves [count, N], and the seeds of the
        second [count, 64].
        """
        encryptor = seal.Encryptor(self._context, self._secret(secret))
        first = np.empty((count, self.degree), np.uint64)
        seeds = np.empty((count, SEED_BYTES), np.uint8)
        start, end = _CIPHERTEXT.size + _HEADER.size + 8, 8 * self.degree
        with _scratch() as file:
            for i in range(count):
                body = _payload(file.written_by(encryptor.encrypt_zero_symmetric().save))
                first[i] = np.frombuffer(body, np.uint64, self.degree, start)
                seeds[i] = np.frombuffer(body, np.uint8, SEED_BYTES, len(body) - SEED_BYTES)
                if len(body) != start + end + _HEADER.size + 1 + SEED_BYTES:
                    raise MissingExtra("this build of TenSEAL saves seeded ciphertexts in another format")
        return self.coefficients(first), seeds

    def expanded_sum(self, seeds: NDArray[np.uint8]) -> Words:
        """Return the sums over clients of the second halves that seeds stand for, [count, N] from [clients,
        count, 64].
        """
        result = np.empty((seeds.shape[1], self.degree), np.uint64)
        with _scratch() as file:
            for i in range(seeds.shape[1]):
                total = self._expanded(file, seeds[0, i])
                for seed in seeds[1:, i]:
                    self._evaluator.add_inplace(total, self._expanded(file, seed))
                self._evaluator.transform_from_ntt_inplace(total)
                result[i] = self._read(file, total, 2)[1]
        return result

    def _expanded(self, file: _File, seed: NDArray[np.uint8]) -> seal.Ciphertext:
        ciphertext = seal.Ciphertext()
        nothing = np.zeros((1, self.degree), np.uint64)
        blob = self._blob(nothing, transformed=True, seed=seed.tobytes())
        ciphertext.load(self._context, file.holding(blob))
        return ciphertext

    # -- decryption -----------------------------------------------------------------------------------------------

    def phases(self, secret: bytes, first: Words, second: Words) -> Words:
        """Return first + second * s modulo q: scaled message plus noise, [count, N] from two of [count, N].

        No row of `second` is all zero: SEAL refuses such ciphertexts, and so does the caller.
        """
        decryptor = seal.Decryptor(self._context, self._secret(secret))
        ciphertext, plaintext = seal.Ciphertext(), seal.Plaintext()
        result = np.empty_like(first)
        with _scratch() as file:
            for i, pair in enumerate(zip(first, second, strict=True)):
                ciphertext.load(self._context, file.holding(self._blob(np.stack(pair), transformed=False)))
                self._evaluator.transform_to_ntt_inplace(ciphertext)
                decryptor.decrypt(ciphertext, plaintext)
                result[i] = _tail(_payload(file.written_by(plaintext.save)), self.degree)
        return self.coefficients(result)

    def coefficients(self, transformed: Words) -> Words:
        """Return the coefficients of polynomials that SEAL gave in transformed order, [count, N]."""
        result = np.empty_like(transformed)
        ciphertext, one = seal.Ciphertext(), np.ones((1, self.degree), np.uint64)
        with _scratch() as file:
            for at in range(0, len(transformed), MAX_POLYNOMIALS - 1):
                part = transformed[at : at + MAX_POLYNOMIALS - 1]
                rows = np.concatenate([part, one])  # SEAL refuses ciphertexts that are zero but for the first
                ciphertext.load(self._context, file.holding(self._blob(rows, transformed=True)))
                self._evaluator.transform_from_ntt_inplace(ciphertext)
                result[at : at + len(part)] = self._read(file, ciphertext, len(rows))[:-1]
        return result

    # -- SEAL's layout --------------------------------------------------------------------------------------------

    def _read(self, file: _File, ciphertext: seal.Ciphertext, polynomials: int) -> Words:
        data = _tail(_payload(file.written_by(ciphertext.save)), polynomials * self.degree)
        return data.reshape(polynomials, self.degree)

    def _blob(self, polynomials: Words, *, transformed: bool, seed: bytes = b"") -> bytes:
        """Return a ciphertext as SEAL's `Ciphertext::load` reads it, uncompressed, from residues that we
        checked.
        """
        size = 2 if seed else len(polynomials)
        body = _CIPHERTEXT.pack(self._parms_id, transformed, size, self.degree, 1, 1.0, 1)
        words = np.ascontiguousarray(polynomials, np.dtype("<u8"))
        body += self._framed(struct.pack("<Q", words.size) + words.tobytes())
        if seed:
            body += self._framed(b"\1" + seed)  # prng_type::blake2xb
        return self._framed(body)

    def _framed(self, body: bytes) -> bytes:
        return self._header + struct.pack("<BHQ", _UNCOMPRESSED, 0, _HEADER.size + len(body)) + body


def _tail(payload: bytes, words: int) -> Words:
    """Return the last `words` words of an object: its one array."""
    return np.frombuffer(payload, np.dtype("<u8"), words, len(payload) - 8 * words)


@lru_cache(maxsize=8)
def ring(degree: int, modulus: int) -> SealRing:
    """Return the ring, made once per process."""
    return SealRing(degree, modulus)
