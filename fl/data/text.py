"""Text as windows of characters: Dickens, and Shakespeare by speaking role, over one alphabet, so that a model of one
can be tuned on the other.

Belongs here: what is done to letters, and whose they are. Where the files are is in `sources.py`. An example is
`length` characters (their numbers in `ALPHABET`), its labels are the characters that follow each of them; windows do
not overlap, and the last fifth of every text is its test part.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fl.data.dataset import DataSet, Labels
from fl.data.download import obtain
from fl.data.sources import published
from protocols.errors import DataMissing, Misuse

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""The characters, by number: the end of a line, then printable ASCII."""

QUOTES = str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''")
BOOK = re.compile(r"^\*\*\* ?START OF[^\n]*\n(.*?)^End of the Project Gutenberg", re.DOTALL | re.MULTILINE)


def dickens(data_dir: Path | None = None, length: int = 80) -> DataSet:
    """A Tale of Two Cities and A Christmas Carol, without their publisher's header and footer. No natural clients.

    length: of a window, in characters, >= 1. Raises DataMissing, Misuse.
    """
    files, where = obtain(published()["dickens"], data_dir)
    return _set("dickens", {name: _book(name, content) for name, content in files.items()}, length, where)


def shakespeare(data_dir: Path | None = None, length: int = 80, least: int = 500) -> DataSet:
    """The speeches of a million characters of plays (Karpathy 2015), whose natural clients are the speaking roles.

    A role's text is all that is said under its name, whatever the play; the name itself is left out. length: of a
    window, in characters, >= 1. least: roles that say fewer characters are left out, and so are those without two
    windows. Raises DataMissing, Misuse.
    """
    files, where = obtain(published()["shakespeare"], data_dir)
    (play,) = files.values()
    roles = speeches(play.decode())
    needed = max(least, 2 * length + 1)
    spoken = {role: said for role, said in sorted(roles.items()) if len(said) >= needed}
    if not spoken:
        raise Misuse(f"shakespeare: no role says {needed} characters; take a smaller `least` or `length`.")
    return _set("shakespeare", spoken, length, where, natural=True)


def numbers(text: str) -> Labels:
    """Return the number of every character in ALPHABET (int64): quotation marks become straight, accents fall away, and
    so does what the alphabet has no sign for.
    """
    plain = unicodedata.normalize("NFKD", text.replace("\r\n", "\n").translate(QUOTES))
    codes = np.frombuffer(plain.encode("ascii", "ignore"), np.uint8).astype(np.int64)
    codes = codes[(codes == ord("\n")) | ((codes >= 32) & (codes < 127))]
    found: Labels = np.maximum(codes - 31, 0)
    return found


def letters(of: Labels) -> str:
    """Return the text that these numbers stand for."""
    return "".join(ALPHABET[number] for number in of)


def speeches(play: str) -> dict[str, str]:
    """Return what each role of a play says: blocks of a line "ROLE:" and the speech, with an empty line between two."""
    said: dict[str, list[str]] = {}
    for block in play.strip().split("\n\n"):
        role, _, speech = f"{block}\n".partition(":\n")
        said.setdefault(role, []).append(speech)
    return {role: "\n".join(parts) for role, parts in said.items()}


def _book(name: str, content: bytes) -> str:
    found = BOOK.search(content.decode("utf-8-sig").replace("\r\n", "\n"))
    if found is None:
        raise DataMissing(f"{name} has no lines that say where the book begins and ends.")
    return found[1].strip() + "\n"


def _set(name: str, texts: Mapping[str, str], length: int, where: str, natural: bool = False) -> DataSet:
    """Windows of every text, and whose text it is where that is a natural client."""
    streams = [numbers(text) for text in texts.values()]
    if not 1 <= length < min(len(stream) for stream in streams) / 2:
        raise Misuse(
            f"{name}: length is from 1 to less than half of every text, which has two windows; not {length}."
        )
    cut = [np.lib.stride_tricks.sliding_window_view(stream, length + 1)[::length] for stream in streams]
    late = np.concatenate([np.arange(len(w)) >= len(w) - math.ceil(len(w) / 5) for w in cut])
    whole, owner = np.concatenate(cut), np.repeat(np.arange(len(cut)), [len(w) for w in cut])
    x, y = whole[:, :-1].astype(np.float32), whole[:, 1:]
    done = f"windows of {length} characters; the last fifth of every text is the test part"
    parts = (x[~late], y[~late], x[late], y[late], len(ALPHABET), where, done)
    whose = (owner[~late], owner[late], tuple(texts)) if natural else ()
    return DataSet(name, *parts, *whose)
