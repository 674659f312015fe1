"""`secagg keys`: identities, rosters, SuperNode keys. What does not belong here: how they are made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from fl.cli import keys_he
from fl.cli.keys_he import OutOption
from fl.cli.keys_he import plain_name as _name
from fl.cli.output import JsonOption, tell

if TYPE_CHECKING:
    from protocols.identity import Member

keys = typer.Typer(
    help="Make identities, signed rosters, SuperNode keys and keys of homomorphic sums.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(keys, name="keys")


@keys.command("new")
def new(name: str, out: OutOption = Path(), as_json: JsonOption = False) -> None:
    """Make an Ed25519 identity: NAME.key (mode 0600) and NAME.pub."""
    from fl.credentials import make_identity

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
    from fl.credentials import save_roster
    from protocols.identity import Identity, Roster, SignedRoster

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
    from fl.credentials import read_public
    from protocols.identity import SignedRoster

    verified = SignedRoster.load(roster_file).verified(read_public(authority))
    names = [m.name for m in verified.members]
    facts = {"federation": verified.federation, "serial": verified.serial, "members": names}
    tell(facts, as_json, f"{verified.federation}, serial {verified.serial}: {', '.join(names)}")


def _member(text: str) -> "Member":
    from fl.credentials import read_public
    from fl.flower.nodes import read_node_key
    from protocols.errors import Misuse
    from protocols.identity import Member

    parts = text.split(":")
    if len(parts) not in (3, 4):
        raise Misuse(f"--member {text!r}: expected NAME:ROLE:PUBLIC_KEY[:NODE_KEY_FILE]")
    transport = read_node_key(Path(parts[3])) if len(parts) == 4 else ""
    return Member(parts[0], parts[1], read_public(parts[2]), transport)


keys_he.register(keys)
