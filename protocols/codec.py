"""One canonical binary encoding for messages, states and configurations. What does not belong here: what they
mean.

A `Record` is a frozen dataclass; its fields' annotations are its schema. Encoding is canonical (equal
records, equal bytes), so it can be hashed and signed. Decoding is strict: sizes are checked against the bytes
that are there before anything is allocated, left-over bytes, unsorted keys and out-of-range values are
refused, nothing is executed.

Layout, big-endian: bool 1 byte; int i64; `BigInt` u32 length + two's complement; float f64; str and bytes u32
length + data; tuple, list u32 count + items; dict u32 count + items by ascending key; Optional 1 byte + item;
enum its value; a nested Record its fields; one of an abstract Record's subclasses u16 TAG + its fields; a vector 1 byte
dtype + u64 count + little-endian items.
"""

import dataclasses
import enum
import inspect
import struct
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Misuse, WireError

MAX_BYTES = 1 << 33
_DTYPES: dict[int, np.dtype[np.generic]] = {
    code: np.dtype(name)
    for code, name in enumerate(["u1", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8"], start=1)
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_I64, _U32, _U64, _F64, _U16 = (struct.Struct(f) for f in (">q", ">I", ">Q", ">d", ">H"))


class BigInt(int):
    """An integer of any size, encoded with its length (plain int fields must fit in 64 bits, signed)."""


class ByteReader:
    """Walks over received bytes and refuses to read past their end."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.view, self.at, self.end = memoryview(data), 0, len(data)

    @property
    def left(self) -> int:
        return self.end - self.at

    def take(self, count: int) -> memoryview:
        start, after = self.at, self.at + count
        if after > self.end:
            raise WireError(f"truncated: expected {count} more bytes, {self.left} are left")
        self.at = after
        return self.view[start:after]

    def unpack(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def count(self, least_item: int) -> int:
        """Read a u32 count of items of at least `least_item` bytes each; refuse it before allocating."""
        count = int(self.unpack(_U32))
        if count * least_item > self.left:
            raise WireError(f"truncated: {count} items were announced, {self.left} bytes are left")
        return count


R = TypeVar("R", bound="Record")
Writer = list[bytes | memoryview]
Encode = Callable[[Writer, Any], None]
Decode = Callable[[ByteReader], Any]


class Record:
    """Base of frozen dataclasses that are encoded. Subclasses of an abstract base (`TAGGED`) carry a 16-bit
    `TAG`.

    Secrets: mark a field with `field(repr=False)`; `encode` is for the owner's store and for sealed messages
    only.
    """

    TAG: ClassVar[int | None] = None
    MAX_SIZE: ClassVar[int] = MAX_BYTES

    def encode(self) -> bytes:
        """Return the canonical encoding. Raises Misuse if a field does not have its annotated type or
        range.
        """
        writer: Writer = []
        for name, write, _ in _fields(type(self)):
            try:
                write(writer, getattr(self, name))
            except (TypeError, ValueError, AttributeError, struct.error, OverflowError) as error:
                raise Misuse(f"{type(self).__name__}.{name} cannot be encoded: {error}") from None
        return b"".join(writer)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Self:
        """Return the record. Raises WireError on any byte string that `encode` cannot have made."""
        if len(data) > cls.MAX_SIZE:
            raise WireError(f"{cls.__name__}: expected at most {cls.MAX_SIZE} bytes, got {len(data)}")
        reader = ByteReader(data)
        record = cls._read(reader)
        if reader.left:
            raise WireError(f"{cls.__name__}: {reader.left} left-over bytes")
        return record

    @classmethod
    def _read(cls, reader: ByteReader) -> Self:
        values = {name: read(reader) for name, _, read in _fields(cls)}
        try:
            return cls(**values)
        except WireError:
            raise
        except (Misuse, ValueError, TypeError) as error:  # __post_init__ states the ranges of the fields
            raise WireError(f"{cls.__name__}: {error}") from None


def encode_tagged(record: Record) -> bytes:
    """Return u16 tag + encoding of a record whose class has a TAG."""
    if record.TAG is None:
        raise Misuse(f"{type(record).__name__} has no TAG")
    return _U16.pack(record.TAG) + record.encode()


def decode_tagged(data: bytes | memoryview, kinds: Mapping[int, type[R]]) -> R:
    """Return the record of one of `kinds` (by tag). Raises WireError for an unknown tag or a bad body."""
    reader = ByteReader(data)
    tag = int(reader.unpack(_U16))
    if tag not in kinds:
        raise WireError(f"unknown tag {tag}, expected one of {sorted(kinds)}")
    return kinds[tag].decode(reader.take(reader.left))


def tags(*kinds: type[R]) -> dict[int, type[R]]:
    """Return the classes by TAG. Raises Misuse for a missing or doubled tag."""
    table: dict[int, type[R]] = {}
    for kind in kinds:
        if kind.TAG is None or kind.TAG in table:
            raise Misuse(f"{kind.__name__}: TAG {kind.TAG} is missing or taken")
        table[kind.TAG] = kind
    return table


_SCHEMAS: dict[type["Record"], list[tuple[str, Encode, Decode]]] = {}


def _fields(cls: type["Record"]) -> list[tuple[str, Encode, Decode]]:
    """Return (name, encoder, decoder) per field, worked out once per class."""
    if cls not in _SCHEMAS:
        hints, named = typing.get_type_hints(cls), dataclasses.fields(typing.cast(Any, cls))
        codecs = [(f.name, *_codec(hints[f.name], f"{cls.__name__}.{f.name}")[:2]) for f in named]
        _SCHEMAS[cls] = codecs
    return _SCHEMAS[cls]


def _codec(hint: Any, where: str) -> tuple[Encode, Decode, int]:
    """Return encoder, decoder and least encoded size of a value of type `hint`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if origin in (typing.Union, types.UnionType):
        return _optional(args, where)
    if origin is list or (origin is tuple and args[1:] == (Ellipsis,)):
        return _sequence(args[0], origin, where)
    if origin is dict:
        return _mapping(args, where)
    if origin is tuple:
        return _fixed(args, where)
    if hint is np.ndarray or origin is np.ndarray:
        return _write_array, _read_array, 9
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enumeration(hint)
    if isinstance(hint, type) and issubclass(hint, Record):
        return _one_of(hint) if inspect.isabstract(hint) else _nested(hint)
    raise Misuse(f"{where}: no encoding for {hint!r}")


def _nested(cls: type[Record]) -> tuple[Encode, Decode, int]:
    def write(w: Writer, v: Any) -> None:
        if type(v) is not cls:
            raise TypeError(f"expected {cls.__name__}, got {type(v).__name__}")
        w.append(v.encode())

    return write, cls._read, 0


def _one_of(base: type[Record]) -> tuple[Encode, Decode, int]:
    """A field of an abstract type holds any of its subclasses that were imported; they tell themselves apart by TAG."""

    def write(w: Writer, v: Any) -> None:
        if type(v) not in base.__subclasses__():
            raise TypeError(f"expected a kind of {base.__name__}, got {type(v).__name__}")
        w.append(_U16.pack(v.TAG) + v.encode())

    def read(r: ByteReader) -> Record:
        tag, kinds = int(r.unpack(_U16)), tags(*base.__subclasses__())
        if tag not in kinds:
            raise WireError(f"unknown kind {tag} of {base.__name__}, expected one of {sorted(kinds)}")
        return kinds[tag]._read(r)

    return write, read, 2


def _enumeration(cls: type[enum.Enum]) -> tuple[Encode, Decode, int]:
    def read(r: ByteReader) -> enum.Enum:
        value = _read_str(r)
        try:
            return cls(value)
        except ValueError:
            raise WireError(f"expected one of {[m.value for m in cls]}, got {value!r}") from None

    return lambda w, v: _write_str(w, cls(v).value), read, 4


def _optional(args: tuple[Any, ...], where: str) -> tuple[Encode, Decode, int]:
    (inner,) = (a for a in args if a is not type(None))
    write_inner, read_inner, _ = _codec(inner, where)

    def write(w: Writer, v: Any) -> None:
        w.append(b"\0" if v is None else b"\1")
        if v is not None:
            write_inner(w, v)

    def read(r: ByteReader) -> Any:
        return read_inner(r) if _read_bool(r) else None

    return write, read, 1


def _sequence(item: Any, make: type, where: str) -> tuple[Encode, Decode, int]:
    write_item, read_item, least = _codec(item, where)

    def write(w: Writer, v: Any) -> None:
        w.append(_U32.pack(len(v)))
        for x in v:
            write_item(w, x)

    def read(r: ByteReader) -> Any:
        return make([read_item(r) for _ in range(r.count(max(least, 1)))])

    return write, read, 4


def _fixed(args: tuple[Any, ...], where: str) -> tuple[Encode, Decode, int]:
    codecs = [_codec(a, where) for a in args]

    def write(w: Writer, v: Any) -> None:
        for (write_item, _, _), x in zip(codecs, v, strict=True):
            write_item(w, x)

    return write, lambda r: tuple(read(r) for _, read, _ in codecs), sum(c[2] for c in codecs)


def _mapping(args: tuple[Any, ...], where: str) -> tuple[Encode, Decode, int]:
    (write_key, read_key, least_key), (write_value, read_value, least_value) = (
        _codec(a, where) for a in args
    )

    def write(w: Writer, v: Any) -> None:
        w.append(_U32.pack(len(v)))
        for key in sorted(v):
            write_key(w, key)
            write_value(w, v[key])

    def read(r: ByteReader) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        last: Any = None
        for _ in range(r.count(max(least_key + least_value, 1))):
            key = read_key(r)
            if last is not None and key <= last:
                raise WireError(f"{where}: keys are not strictly ascending")
            result[key] = read_value(r)
            last = key
        return result

    return write, read, 4


def _write_int(w: Writer, v: Any) -> None:
    w.append(_I64.pack(int(v)))


def _write_big(w: Writer, v: Any) -> None:
    size = v.bit_length() // 8 + 1
    w.append(_U32.pack(size) + int(v).to_bytes(size, "big", signed=True))


def _read_big(r: ByteReader) -> BigInt:
    data = r.take(r.count(1))
    value = BigInt(int.from_bytes(data, "big", signed=True))
    if len(data) != value.bit_length() // 8 + 1:
        raise WireError("an integer is not in its shortest form")
    return value


def _write_bool(w: Writer, v: Any) -> None:
    if not isinstance(v, bool | np.bool_):
        raise TypeError(f"expected a bool, got {type(v).__name__}")
    w.append(b"\1" if v else b"\0")


def _read_bool(r: ByteReader) -> bool:
    value = r.take(1)[0]
    if value > 1:
        raise WireError(f"expected 0 or 1, got {value}")
    return value == 1


def _write_bytes(w: Writer, v: Any) -> None:
    if not isinstance(v, bytes | bytearray | memoryview):
        raise TypeError(f"expected bytes, got {type(v).__name__}")
    w.append(_U32.pack(len(v)))
    w.append(bytes(v) if isinstance(v, bytearray) else v)


def _read_bytes(r: ByteReader) -> bytes:
    return bytes(r.take(r.count(1)))


def _write_str(w: Writer, v: Any) -> None:
    _write_bytes(w, v.encode("utf-8"))


def _read_str(r: ByteReader) -> str:
    try:
        return str(r.take(r.count(1)), "utf-8")
    except UnicodeDecodeError:
        raise WireError("a string is not UTF-8") from None


def _write_array(w: Writer, v: Any) -> None:
    if v.ndim != 1 or v.dtype.newbyteorder("<") not in _CODES:
        raise TypeError(
            f"expected a vector of {sorted(str(d) for d in _CODES)}, got {v.dtype} of rank {v.ndim}"
        )
    dtype = v.dtype.newbyteorder("<")
    flat = np.ascontiguousarray(v, dtype=dtype)
    w.append(bytes([_CODES[dtype]]) + _U64.pack(len(flat)))
    w.append(flat.view(np.uint8).data)


def _read_array(r: ByteReader) -> NDArray[np.generic]:
    code = r.take(1)[0]
    if code not in _DTYPES:
        raise WireError(f"unknown dtype code {code}")
    count = int(r.unpack(_U64))
    if count * _DTYPES[code].itemsize > r.left:
        raise WireError(f"truncated: an array of {count} items was announced, {r.left} bytes are left")
    return np.frombuffer(r.take(count * _DTYPES[code].itemsize), dtype=_DTYPES[code]).copy()


_SCALARS: dict[Any, tuple[Encode, Decode, int]] = {
    bool: (_write_bool, _read_bool, 1),
    int: (_write_int, lambda r: int(r.unpack(_I64)), 8),
    BigInt: (_write_big, _read_big, 5),
    float: (lambda w, v: w.append(_F64.pack(v)), lambda r: float(r.unpack(_F64)), 8),
    str: (_write_str, _read_str, 4),
    bytes: (_write_bytes, _read_bytes, 4),
}
