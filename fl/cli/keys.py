"""`secagg keys`: identities, rosters, SuperNode keys, keys of homomorphic sums. What does not belong here: how they are
made.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from fl.cli.output import JsonOption, tell
from fl.credentials import expect_none, make_identity, private_folder, read_public, save_roster
from protocols.errors import Misuse
from protocols.extras import needs
from protocols.identity import Identity, Member, Roster, SignedRoster

OutOption = Annotated[Path, Option(help="Folder to write to; it is made with mode 0700.")]
keys = typer.Typer(
    help="Make identities, signed rosters, SuperNode keys and keys of homomorphic sums.", no_args_is_help=True
)


@keys.command("new")
def new(name: str, out: OutOption = Path(), as_json: JsonOption = False) -> None:
    """Make an Ed25519 identity: NAME.key (mode 0600) and NAME.pub."""
    identity = make_identity(_name(name), out)
    facts = {"name": name, "public": identity.public.hex(), "private_file": str(out / f"{name}.key")}
    tell(facts, as_json, f"{out / name}.key (keep it), {out / name}.pub: {identity.public.hex()}")


@keys.command("node")
def node(name: str, out: OutOption = Path(), as_json: JsonOption = False) -> None:
    """Make a SuperNode's connection key: NAME.auth (mode 0600, OpenSSH form) and NAME.auth.pub."""
    from fl.flower.nodes import make_node_key

    private, public, transport = make_node_key(_name(name), out)
    facts = {"name": name, "transport": transport, "private_file": str(private), "public_file": str(public)}
    tell(facts, as_json, f"{private} (keep it), {public}: {transport}")


@keys.command("roster")
def roster(
    federation: Annotated[str, Argument(help="Name of the federation.")],
    authority: Annotated[Path, Option(help="Private key that signs; not the server's.")],
    member: Annotated[
        list[str], Option(help="NAME:ROLE:PUBLIC_KEY[:NODE_KEY_FILE], once per member.", metavar="MEMBER")
    ],
    out: Annotated[Path, Option(help="The roster file to write.")] = Path("roster.json"),
    serial: Annotated[int, Option(min=1, help="Grows with every change.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Sign a roster: who takes part, in which role, with which key. A file that holds one is replaced by a later
    serial only.
    """
    members = [_member(text) for text in member]
    signer = Identity.load(authority)
    signed = SignedRoster.sign(Roster.of(federation, serial, members), signer)
    save_roster(signed, out)
    facts = {
        "roster": str(out),
        "members": [m.name for m in signed.roster.members],
        "authority": signer.public.hex(),
    }
    tell(facts, as_json, f"{out}: {len(members)} members, signed by {signer.public.hex()}")


@keys.command("check")
def check(
    roster_file: Annotated[Path, Argument(metavar="ROSTER")],
    authority: Annotated[str, Option(help="The pinned public key: 64 hexadecimal digits or a .pub file.")],
    as_json: JsonOption = False,
) -> None:
    """Verify a roster under the authority's public key."""
    verified = SignedRoster.load(roster_file).verified(read_public(authority))
    names = [m.name for m in verified.members]
    facts = {"federation": verified.federation, "serial": verified.serial, "members": names}
    tell(facts, as_json, f"{verified.federation}, serial {verified.serial}: {', '.join(names)}")


def _member(text: str) -> Member:
    from fl.flower.nodes import read_node_key

    parts = text.split(":")
    if len(parts) not in (3, 4):
        raise Misuse(f"--member {text!r}: expected NAME:ROLE:PUBLIC_KEY[:NODE_KEY_FILE]")
    transport = read_node_key(Path(parts[3])) if len(parts) == 4 else ""
    return Member(parts[0], parts[1], read_public(parts[2]), transport)


@keys.command("paillier")
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
    from he.arrangements import Threshold
    from he.arrangements import arrangement as named

    _name(name)
    chosen = named(arrangement)
    if isinstance(chosen, Threshold):
        chosen = replace(chosen, dealer=dealer)
    with needs("he", "a Paillier key"):
        from he.paillier import files, keyring
    files.expect_none(out, name)
    ring = keyring.make(chosen, bits)
    made = files.save_all(ring, out, name)
    secret = [str(path) for path in made.secret]
    facts = {"name": name, "arrangement": str(chosen), "bits": bits, "key": ring.digest.hex()}
    owner = f"{secret[0]}: for {'every client' if str(chosen) == 'shared' else 'the key holder alone'}"
    if isinstance(chosen, Threshold):
        facts["dealer"] = chosen.dealer
        holders = f"for one decryptor each; {chosen.dealer} hands them out and erases them here"
        owner = f"{', '.join(secret)}: {holders}"
    facts |= {"public_file": str(made.public), "private_files": secret}
    tell(facts, as_json, f"{made.public}: for the server and the clients", owner)


@keys.command("ckks")
def ckks(name: str, out: OutOption = Path(), as_json: JsonOption = False) -> None:
    """Make the key that clients share under CKKS: NAME.ckks.key (mode 0600). A CKKS key holder needs no file: it
    makes a new key in every session.
    """

    _name(name)
    with needs("he", "a CKKS key"):
        from he.ckks import SharedKey
    path = out / f"{name}.ckks.key"
    expect_none(path)
    private_folder(out)
    SharedKey.generate().save(path)
    facts = {"name": name, "arrangement": "shared", "private_files": [str(path)]}
    tell(facts, as_json, f"{path}: for the clients, never for the server")


def _name(name: str) -> str:
    """Return a name that may be part of a file's name. Raises Misuse for another."""
    if not name or Path(name).name != name or not name.isprintable():
        raise Misuse(f"{name!r} is no name for a key: use letters, digits, dots and dashes")
    return name
