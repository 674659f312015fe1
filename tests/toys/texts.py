"""A small play and a small book, in the form of the published ones, and where they lie."""

import hashlib
from pathlib import Path

from fl.data.sources import DataFile, Source

PLAY = "\n\n".join(
    block
    for line in range(6)
    for block in (
        f"ROMEO:\nIt is the {line}th night,\nand Juliet is the sun.",
        f"JULIET:\nO Romeo, {line}!",
        f"MERCUTIO:\nTrue, I talk of {line} dreams.",
        "NURSE:",
    )
)
BOOK = (
    "\ufeffThe Project Gutenberg EBook\r\n*** START OF THIS PROJECT GUTENBERG EBOOK ***\r\n\r\n"
    + "It was the best of times, “it was” the caf\u00e9 of times.\r\n" * 8
    + "End of the Project Gutenberg EBook\r\n*** END OF THIS PROJECT GUTENBERG EBOOK ***\r\nlicence\r\n"
)


def small_texts(folder: Path) -> dict[str, Source]:
    """Write both into a folder, and return what is known of them, by name."""
    found = {}
    for name, text in (("shakespeare", PLAY), ("dickens", BOOK)):
        content = text.encode()
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "a.txt").write_bytes(content)
        file = DataFile("a.txt", hashlib.sha256(content).hexdigest(), len(content))
        found[name] = Source(name, (file,), "none")
    return found
