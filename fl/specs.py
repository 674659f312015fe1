"""Options in text and TOML: `name:key=value,...` taken apart, and values turned into what a signature
asks for.

Belongs here: syntax and types. Which names exist, and what they build, belongs in `fl/registry.py`.
"""

import contextlib
import difflib
import enum
import inspect
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from protocols.errors import Misuse

_KINDS = {
    float: "a number",
    int: "a whole number",
    str: "text",
    bool: "true or false",
    bytes: "hexadecimal bytes",
    tuple: "a list",
    list: "a list",
}


@dataclass(frozen=True)
class Spec:
    """A name and its options, as a user wrote them; `typed` tells values of TOML from text of a command
    line.
    """

    name: str
    options: Mapping[str, object] = field(default_factory=dict)
    typed: bool = False


def parse_spec(text: str, known: Sequence[str]) -> Spec:
    """Reads `name`, `name:key=value,...`, `package.module:factory` or `package.module:factory:key=value,...`.

    `known` are the registered names: what stands behind their first colon is options. Raises Misuse for
    an option that is not `key=value` or comes twice.
    """
    head, colon, rest = text.strip().partition(":")
    if colon and head not in known:
        factory, _, options = rest.partition(":")
        if "=" not in factory:
            head, rest = f"{head}:{factory}", options
    options_read: dict[str, object] = {}
    for item in _split(rest):
        key, equals, value = item.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise Misuse(f"In {text!r}: {item!r} is not an option of the form key=value.")
        if key in options_read:
            raise Misuse(f"In {text!r}: the option {key!r} is given twice.")
        options_read[key] = value.strip()
    return Spec(head, options_read)


def spec_of_table(table: Mapping[str, object], where: str) -> Spec:
    """Reads a TOML table such as `{name = "secagg+", dropout = 0.4}`. Raises Misuse where `name` is not a
    string.
    """
    name = table.get("name")
    if not isinstance(name, str):
        raise Misuse(
            f"{where} needs a key `name` with a string, such as name = 'secagg+'; it has {sorted(table)}."
        )
    return Spec(name, {k.replace("-", "_"): v for k, v in table.items() if k != "name"}, typed=True)


def parameters_of(factory: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """The parameters of `factory` by name, annotations resolved where they can be; none where it hides them."""
    for resolved in (True, False):  # some annotations only a type checker can resolve
        with contextlib.suppress(NameError, TypeError, ValueError):
            return dict(inspect.signature(factory, eval_str=resolved).parameters)
    return {}


def bind(spec: Spec, factory: Callable[..., object], given: Mapping[str, object]) -> dict[str, object]:
    """Keyword arguments for `factory`: the options of `spec`, typed by its signature, and such of `given`
    as it takes.

    `given` is what the caller provides (input shape, data directory): no option of the user's. Raises
    Misuse for an unknown option, a value of the wrong type, or a required option that is missing; each
    names the valid ones.
    """
    parameters = parameters_of(factory)
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    options = {name: p for name, p in named.items() if name not in given}
    arguments = {name: value for name, value in given.items() if name in named or anything}
    for key, value in spec.options.items():
        if key in options:
            arguments[key] = _convert(value, options[key].annotation, spec, key)
        elif anything and key not in given:
            arguments[key] = value
        else:
            raise Misuse(_unknown(spec.name, key, options))
    for name, parameter in options.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise Misuse(f"{spec.name} needs the option {name}: {_describe(parameter)}.")
    return arguments


def closest(word: str, words: Sequence[str]) -> str:
    """` Did you mean 'x'?` for a near miss, else nothing."""
    near = difflib.get_close_matches(word, words, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets, so that a value may be a list."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def _unknown(name: str, key: str, options: Mapping[str, inspect.Parameter]) -> str:
    writable = {option: p for option, p in options.items() if _words(p.annotation)}
    if not writable:
        return f"{name} takes no options; {key!r} was given."
    valid = ", ".join(_describe(p) for p in writable.values())
    return f"{name} has no option {key!r}.{closest(key, list(writable))} Its options: {valid}."


def _describe(parameter: inspect.Parameter) -> str:
    """`dropout (number, 0.2 unless given)`."""
    parts = [" or ".join(_words(parameter.annotation))]
    if parameter.default not in (parameter.empty, None, b"", ()):
        parts.append(f"{parameter.default} unless given")
    inside = ", ".join(part for part in parts if part)
    return f"{parameter.name} ({inside})" if inside else parameter.name


def _words(annotation: object) -> list[str]:
    """What a user may write for an annotation, in words; empty where only Python can give such a value."""
    found = []
    for member in _members(annotation):
        kind = typing.get_origin(member) or member
        if kind is typing.Literal:
            found += [str(choice) for choice in typing.get_args(member)]
        elif kind is inspect.Parameter.empty or kind is typing.Any:
            found.append("any value")
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            found += [str(choice.value) for choice in kind]
        elif isinstance(kind, type):
            found += [word for base, word in _KINDS.items() if kind is base]
    return found


def _convert(value: object, annotation: object, spec: Spec, key: str) -> object:
    for member in _members(annotation):
        with contextlib.suppress(ValueError, KeyError):
            return _typed(value, member) if spec.typed else _from_text(str(value), member)
    wanted = " or ".join(_words(annotation)) or "a value that only Python code can give"
    raise Misuse(f"{spec.name}: the option {key} takes {wanted}, not {value!r}.")


def _members(annotation: object) -> list[object]:
    """The members of a union in the order in which text is tried: text itself last. Others: themselves."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return sorted(typing.get_args(annotation), key=lambda member: member is str)
    return [annotation]


def _number(text: str) -> float:
    if math.isnan(number := float(text)):
        raise ValueError(text)
    return number


_READERS: dict[object, Callable[[str], object]] = {
    str: str,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    None: lambda text: {"none": None}[text.lower()],
    types.NoneType: lambda text: {"none": None}[text.lower()],
    int: int,
    bytes: bytes.fromhex,
    float: _number,
}
"""How text becomes a value of a type; others are read as TOML."""


def _from_text(text: str, kind: object) -> object:
    """Return text as a value of one type. Raises ValueError or KeyError for text that is none."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(text)
    if typing.get_origin(kind) is typing.Literal:
        return {str(choice): choice for choice in typing.get_args(kind)}[text]
    return _READERS[kind](text) if kind in _READERS else _typed(_literal(text), kind)


def _literal(text: str) -> object:
    """A TOML value, or the text itself where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _typed(value: object, member: object) -> object:
    """Return a value of TOML as one type. Raises ValueError for another."""
    kind = typing.get_origin(member) or member
    if kind is typing.Literal and value in typing.get_args(member):
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is bytes and isinstance(value, str):
        return bytes.fromhex(value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and isinstance(value, str):
        return kind(value)
    if isinstance(kind, type) and issubclass(kind, tuple) and isinstance(value, list):
        return tuple(value)
    fits = kind is inspect.Parameter.empty or (isinstance(kind, type) and isinstance(value, kind))
    untold = not isinstance(kind, type) and kind is not typing.Literal  # nothing that can be checked here
    if (fits or untold) and not (kind is int and isinstance(value, bool)):
        return value
    raise ValueError(value)
