"""`secagg verify`: does a run record hold, with the files beside it, or a privacy ledger and its signed head. What
does not belong here: the checks (`protocols.record`, `dp.ledger`).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from dp.ledger import Ledger
from dp.ledger_head import LedgerVerdict, SignedHead
from fl.cli.output import JsonOption, emit_json, tell
from protocols.errors import Misuse, RecordError
from protocols.identity import Identity
from protocols.record import FILE_NAME, RecordVerdict, check_files, verify_record


def verify(
    run: Annotated[Path | None, Argument(help="The folder of a run, or its record.")] = None,
    public_key: Annotated[
        str | None, Option(help="The signer's public key: 64 hexadecimal digits or a .pub file.")
    ] = None,
    head: Annotated[
        str | None,
        Option(
            help="Heads that a client kept: 64 hexadecimal digits, or a file of them; a ledger's signed head (a file)."
        ),
    ] = None,
    ledger: Annotated[Path | None, Option(help="A privacy ledger, in place of RUN.")] = None,
    sign: Annotated[
        Path | None, Option(help="With --ledger: sign its head by this identity's key, for others to keep.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the run record in RUN: its chain, its signatures, a kept head and the files it names. With --ledger, check
    a privacy ledger: its chain, its budget, a signed head that somebody kept; --sign prints such a head.

    Without the public key it says "internally consistent only": whoever wrote the file could have written all
    of it.
    """
    if (run is None) == (ledger is None) or (sign is not None and ledger is None):
        raise Misuse("give RUN, or --ledger and perhaps --sign")
    key = None if public_key is None else _hex(public_key, "--public-key")[-1]
    if ledger is not None:
        show_ledger(ledger, key, head, sign, as_json)
        return
    assert run is not None
    path = run / FILE_NAME if run.is_dir() else run
    if not path.is_file():
        raise Misuse(f"no run record at {path}: give the folder that `secagg run` wrote, or its {FILE_NAME}")
    heads = [] if head is None else [data.hex() for data in _hex(head, "--head")]
    verdict = verify_record(path, key, heads[-1] if heads else None)
    if heads:
        verdict = replace(verdict, kept_index=_newest(verdict, heads))
    files = check_files(verdict, path.parent)
    facts = {
        "verdict": verdict.level,
        "verified": verdict.level == "verified",
        "entries": len(verdict.entries),
        "head": verdict.head,
        "kept_index": verdict.kept_index,
        "entries_after_kept": _later(verdict),
        "files": list(files),
    }
    told = f"{path}: {verdict.level}; {len(verdict.entries)} entries, {len(files)} files match"
    tell(facts, as_json, told, f"head {verdict.head}", *_reach(verdict, key is not None))


def _newest(verdict: RecordVerdict, heads: list[str]) -> int:
    """Return the index of the newest of the kept heads. Raises RecordError if one is not in the record."""
    known = {entry.head: entry.index for entry in verdict.entries}
    if missing := [one for one in heads if one not in known]:
        raise RecordError(
            f"the kept head {missing[0][:16]} is not in the record: it was cut short or replaced"
        )
    return max(known[one] for one in heads)


def _later(verdict: RecordVerdict) -> int | None:
    """How many entries follow the newest kept head; None without one."""
    return None if verdict.kept_index is None else len(verdict.entries) - 1 - verdict.kept_index


def _reach(verdict: RecordVerdict, signed: bool) -> Iterator[str]:
    """Say up to where somebody else's head reaches, and what covers the rest."""
    if verdict.kept_index is not None:
        told = verdict.entries[verdict.kept_index].body.get("round")
        place = f"entry {verdict.kept_index}" + ("" if told is None else f" (round {told})")
        yield f"The kept head proves everything up to {place}: nothing there was edited, removed or added later."
        later = _later(verdict)
        cover = "the signature alone covers them" if signed else "nothing covers them"
        if later:
            yield (
                f"{later} {'entries follow' if later > 1 else 'entry follows'} it: {cover}, and whoever wrote the "
                "record could have replaced them or cut off more. Give a later head."
            )
    if not signed:
        yield "Give --public-key (the server's) and --head (one that a client kept) to rule out a rewritten record."
    elif verdict.kept_index is None:
        yield "Give --head, one that a client kept, to rule out that later entries were cut off."


def _hex(text: str, option: str) -> list[bytes]:
    """Return values of 32 bytes given as hexadecimal digits or in a file of them; at least one. Raises Misuse."""
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


def show_ledger(path: Path, key: bytes | None, head: str | None, sign: Path | None, as_json: bool) -> None:
    """Check a ledger, print what was established, or its signed head. Raises Misuse, StoreError."""
    if not path.is_file():
        raise Misuse(f"no ledger at {path}")
    ledger = Ledger(path)
    verdict = ledger.verify(None if head is None else _signed_head(Path(head)), key)
    if sign is not None:
        emit_json(ledger.sign_head(Identity.load(sign)).to_json())
        return
    verified = verdict.level == "verified"
    facts = {
        "verdict": verdict.level,
        "verified": verified,
        **asdict(verdict),
        "terms": ledger.terms.to_plain(),
    }
    tell(facts, as_json, *_lines(path, ledger, verdict))


def _lines(path: Path, ledger: Ledger, verdict: LedgerVerdict) -> Iterator[str]:
    yield f"{path}: {verdict.level}; {verdict.charges} charges\nhead {verdict.head}"
    for spent in ledger.spent():
        yield f"{spent}; the budget is {ledger.terms.epsilon:g}"
    if verdict.kept is not None:
        yield f"The kept head covers the budget and the first {verdict.kept} charges: nothing there was changed."
    if verdict.level != "verified":
        yield (
            "Give --head (a signed head that somebody else kept) and --public-key (the signer's) to rule out a rewrite."
        )


def _signed_head(path: Path) -> SignedHead:
    """Return the signed head in a file. Raises Misuse."""
    try:
        return SignedHead.from_json(json.loads(path.read_text()))
    except (OSError, ValueError):
        raise Misuse(
            f"--head: expected a file that `secagg verify --ledger --sign` printed, got {path}"
        ) from None
