"""Identities sign for one purpose; a roster is believed only when the pinned authority signed it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import Misuse, PeerError, StoreError, WireError
from protocols.identity import BadSignature, Identity, Member, Roster, SignedRoster, verify

AUTHORITY = Identity.generate("authority")
SERVER = Identity.generate("server")
CLIENTS = [Identity.generate(f"client-{i}") for i in range(3)]


def roster(serial: int = 1) -> Roster:
    members = [Member(c.name, "client", c.public, f"node-{c.name}") for c in CLIENTS]
    return Roster.of("hospital", serial, [Member("server", "server", SERVER.public), *members])


def test_a_signature_holds_for_its_purpose_data_and_key_only() -> None:
    signature = CLIENTS[0].sign("hello", b"data")
    verify(CLIENTS[0].public, "hello", b"data", signature)
    for public, purpose, data in [
        (CLIENTS[1].public, "hello", b"data"),
        (CLIENTS[0].public, "other", b"data"),
        (CLIENTS[0].public, "hello", b"datb"),
        (b"short", "hello", b"data"),
    ]:
        with pytest.raises(BadSignature):
            verify(public, purpose, data, signature)
    with pytest.raises(BadSignature):
        verify(CLIENTS[0].public, "hello", b"data", b"")


def test_an_identity_is_saved_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    CLIENTS[0].save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = Identity.load(path)
    assert (loaded.name, loaded.public) == ("alice", CLIENTS[0].public)
    path.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        Identity.load(path)
    path.write_text("nothing")
    path.chmod(0o600)
    with pytest.raises(StoreError, match="PEM"):
        Identity.load(path)
    with pytest.raises(StoreError, match="secagg keys"):
        Identity.load(tmp_path / "none")


def test_the_private_key_is_never_printed(tmp_path: Path) -> None:
    CLIENTS[0].save(tmp_path / "k")
    body = (tmp_path / "k").read_text().splitlines()[1]
    assert body not in repr(CLIENTS[0])
    assert CLIENTS[0].public.hex() in repr(CLIENTS[0])


def test_a_roster_survives_its_file_and_verifies(tmp_path: Path) -> None:
    signed = SignedRoster.sign(roster(), AUTHORITY)
    signed.save(tmp_path / "roster.json")
    loaded = SignedRoster.load(tmp_path / "roster.json")
    assert loaded.verified(AUTHORITY.public) == roster()
    assert loaded == SignedRoster.decode(signed.encode())
    assert [m.name for m in roster().with_role("client")] == ["client-0", "client-1", "client-2"]


def test_another_authority_or_an_old_roster_is_refused() -> None:
    signed = SignedRoster.sign(roster(serial=2), AUTHORITY)
    with pytest.raises(BadSignature, match="pinned"):
        signed.verified(SERVER.public)
    with pytest.raises(PeerError, match="older"):
        signed.verified(AUTHORITY.public, least_serial=3)
    forged = SignedRoster(signed.roster, AUTHORITY.public, SERVER.sign("roster", signed.roster.encode()))
    with pytest.raises(BadSignature):
        forged.verified(AUTHORITY.public)


def test_the_server_cannot_vouch_for_its_own_roster() -> None:
    with pytest.raises(Misuse, match="someone other"):
        SignedRoster.sign(roster(), SERVER)
    own = SignedRoster(roster(), SERVER.public, SERVER.sign("roster", roster().encode()))
    with pytest.raises(Misuse, match="someone other"):
        own.verified(SERVER.public)


@pytest.mark.parametrize("field", ["name", "role", "key", "transport"])
def test_any_edit_of_a_member_breaks_the_signature(field: str) -> None:
    raw = json.loads(SignedRoster.sign(roster(), AUTHORITY).to_json())
    raw["members"][0][field] = {"name": "a", "role": "server", "key": "00" * 32, "transport": "x"}[field]
    with pytest.raises(BadSignature):
        SignedRoster.from_json(json.dumps(raw)).verified(AUTHORITY.public)


def test_one_party_cannot_be_two() -> None:
    key = CLIENTS[0].public
    for pair in (
        [Member("a", "client", key), Member("a", "client", SERVER.public)],
        [Member("a", "client", key), Member("b", "client", key)],
        [Member("a", "client", key, "n"), Member("b", "client", SERVER.public, "n")],
    ):
        with pytest.raises(Misuse):
            Roster.of("f", 1, pair)
    with pytest.raises(Misuse):
        Member("a", "nobody", key)
    with pytest.raises(PeerError, match="not on the roster"):
        roster().member("mallory")


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_bytes_that_are_no_roster_are_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        SignedRoster.from_json(data)
    with pytest.raises(WireError):
        SignedRoster.decode(data[:40])
