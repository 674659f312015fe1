"""`secagg keys paillier | ckks`: keys of homomorphic sums. What does not belong here: how they are made."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from fl.cli.output import JsonOption, tell

OutOption = Annotated[Path, Option(help="Folder to write to; it is made with mode 0700.")]


def register(keys: typer.Typer) -> None:
    """Add the commands to `secagg keys`."""
    keys.command("paillier")(paillier)
    keys.command("ckks")(ckks)


def paillier(
    name: str,
    arrangement: Annotated[
        str, Option(help="keyholder, shared, or threshold-T-of-N: you are the dealer then.")
    ] = "threshold-3-of-4",
    bits: Annotated[int, Option(help="Length of the key: 3072, or 2048 by choice.")] = 3072,
    dealer: Annotated[
        str, Option(help="Who makes a threshold key, hands out its shares and forgets them.")
    ] = "key dealer",
    out: OutOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make a Paillier key: NAME.paillier.pub for the server and the clients, and NAME.paillier.key for the key
    holder (or for every client, if shared), or NAME-1.paillier.key and so on for the decryptors (mode 0600).
    """
    from dataclasses import replace

    from he.arrangements import Threshold
    from he.arrangements import arrangement as named
    from protocols.extras import needs

    plain_name(name)
    chosen = named(arrangement)
    if isinstance(chosen, Threshold):
        chosen = replace(chosen, dealer=dealer)
    with needs("he", "a Paillier key"):
        from he.paillier.files import expect_none, save_all
        from he.paillier.keyring import make
    expect_none(out, name)
    ring = make(chosen, bits)
    made = save_all(ring, out, name)
    secret = [str(path) for path in made.secret]
    facts = {"name": name, "arrangement": str(chosen), "bits": bits, "key": ring.digest.hex()}
    owner = f"{secret[0]}: for {'every client' if str(chosen) == 'shared' else 'the key holder alone'}"
    if isinstance(chosen, Threshold):
        facts["dealer"] = chosen.dealer
        holders = f"for one decryptor each; {chosen.dealer} hands them out and erases them here"
        owner = f"{', '.join(secret)}: {holders}"
    facts |= {"public_file": str(made.public), "private_files": secret}
    tell(facts, as_json, f"{made.public}: for the server and the clients", owner)


def ckks(name: str, out: OutOption = Path(), as_json: JsonOption = False) -> None:
    """Make the key that clients share under CKKS: NAME.ckks.key (mode 0600). A CKKS key holder needs no file: it
    makes a new key in every session.
    """
    from fl.credentials import expect_none, private_folder
    from protocols.extras import needs

    plain_name(name)
    with needs("he", "a CKKS key"):
        from he.ckks import SharedKey
    path = out / f"{name}.ckks.key"
    expect_none(path)
    private_folder(out)
    SharedKey.generate().save(path)
    facts = {"name": name, "arrangement": "shared", "private_files": [str(path)]}
    tell(facts, as_json, f"{path}: for the clients, never for the server")


def plain_name(name: str) -> str:
    """Return a name that may be part of a file's name. Raises Misuse for another."""
    from protocols.errors import Misuse

    if not name or Path(name).name != name or not name.isprintable():
        raise Misuse(f"{name!r} is no name for a key: use letters, digits, dots and dashes")
    return name
