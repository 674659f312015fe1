"""`secagg verify`: does a run record hold, and do the files beside it. What does not belong here: the
checks.
"""

from pathlib import Path
from typing import Annotated

import typer

from fl.cli.output import JsonOption, emit_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


def verify(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or its record.")],
    public_key: Annotated[
        str | None, typer.Option(help="The signer's public key: 64 hexadecimal digits or a .pub file.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="Heads that a client kept: 64 hexadecimal digits, or a file of them."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the run record in RUN: its chain, its signatures, a kept head and the files it names.

    Without the public key it says "internally consistent only": whoever wrote the file could have written all
    of it.
    """
    from protocols.errors import Misuse, RecordError
    from protocols.record import FILE_NAME, check_files, verify_record

    path = run / FILE_NAME if run.is_dir() else run
    if not path.is_file():
        raise Misuse(f"no run record at {path}: give the folder that `secagg run` wrote, or its {FILE_NAME}")
    key = None if public_key is None else _hex(public_key, "--public-key")[-1]
    heads = [] if head is None else [data.hex() for data in _hex(head, "--head")]
    kept = heads[-1] if heads else None
    verdict = verify_record(path, key, kept)
    known = {entry.head for entry in verdict.entries}
    if missing := [one for one in heads if one not in known]:
        raise RecordError(
            f"the kept head {missing[0][:16]} is not in the record: it was cut short or replaced"
        )
    files = check_files(verdict, path.parent)
    if as_json:
        emit_json(
            {
                "verdict": verdict.level,
                "verified": verdict.level == "verified",
                "entries": len(verdict.entries),
                "head": verdict.head,
                "kept_index": verdict.kept_index,
                "files": list(files),
            }
        )
        return
    print(f"{path}: {verdict.level}; {len(verdict.entries)} entries, {len(files)} files match")
    print(f"head {verdict.head}")
    if key is None:
        print(
            "Give --public-key (the server's) and --head (one that a client kept) to rule out a rewritten record."
        )
    elif kept is None:
        print("Give --head, one that a client kept, to rule out that later entries were cut off.")


def _hex(text: str, option: str) -> list[bytes]:
    """Return values of 32 bytes given as hexadecimal digits or in a file of them; at least one. Raises Misuse."""
    from protocols.errors import Misuse

    words = [text]
    if Path(text).is_file():
        words = [word for word in Path(text).read_text(errors="replace").split() if len(word) == 64]
    try:
        found = [bytes.fromhex(word) for word in words]
    except ValueError:
        found = []
    if not found or any(len(data) != 32 for data in found):
        raise Misuse(f"{option}: expected 64 hexadecimal digits or a file that holds them, got {text!r}")
    return found
