"""`secagg keys paillier | ckks` as typed: a deployment's key files, and runs from them, without a line of Python."""

import contextlib
import io
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.cli import invoke
from fl.registry import PRIVACY
from he import CKKSSum, KeyHolder, PaillierSum, Threshold
from he.paillier import KeyShare, load
from he.paillier.keyring import HolderKey, HolderPublic
from he.paillier.threshold import ThresholdKey
from protocols import SecureSum, simulate
from protocols.errors import Misuse
from protocols.kernel import SERVER, Party, State, client
from protocols.randomness import SystemRandom
from protocols.summation import Total

RANDOM = SystemRandom()
INPUTS = {"a": [4, -5], "b": [6, 7], "c": [-1, 0]}


def secagg(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = invoke([str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()


def made(*arguments: object) -> dict[str, Any]:
    code, out, err = secagg("keys", *arguments, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def mode(path: str | Path) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def built(spec: str) -> SecureSum:
    protocol = PRIVACY.build(spec)
    assert isinstance(protocol, SecureSum)
    return protocol


def test_a_key_holders_files_serve_a_deployment(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    facts = made("paillier", "site", "--arrangement", "keyholder", "--bits", 2048, "--out", folder)
    (secret,), public = facts["private_files"], facts["public_file"]
    assert (mode(folder), mode(secret), mode(public)) == (0o700, 0o600, 0o644)
    assert isinstance(load(secret), HolderKey)
    assert isinstance(load(public), HolderPublic)
    holders, others = (built(f"paillier:arrangement=keyholder,keys={path}") for path in (secret, public))
    session = others.session(list(INPUTS), 2, 9, random=RANDOM)
    states: dict[Party, State] = {
        client(i): others.client(session, i, np.array(v), random=RANDOM).state
        for i, v in enumerate(INPUTS.values())
    }
    with pytest.raises(Misuse, match="public part only"):
        others.helper(session, others.helpers(session)[0], random=RANDOM)
    for party in holders.helpers(session):
        states[party] = holders.helper(session, party, random=RANDOM).state
    assert total(others, session, states) == [9, 2]


def total(protocol: SecureSum, session: Any, states: dict[Party, State]) -> list[int]:
    step = protocol.server(session, random=RANDOM)
    for _ in protocol.stages(session):
        states[SERVER] = step.state
        for request in step.send:
            for answer in states[request.recipient].receive(request, RANDOM).send:
                states[SERVER] = states[SERVER].receive(answer, RANDOM).state
        step = states[SERVER].close(RANDOM)
    assert isinstance(step.state, Total)
    values: list[int] = step.state.total.tolist()
    return values


def test_a_dealer_makes_a_file_per_decryptor_and_is_named(tmp_path: Path) -> None:
    options = ("--arrangement", "threshold-2-of-3", "--bits", 2048, "--dealer", "the data office")
    facts = made("paillier", "fed", *options, "--out", tmp_path)
    assert facts["dealer"] == "the data office"
    assert [Path(path).name for path in facts["private_files"]] == [
        f"fed-{i}.paillier.key" for i in (1, 2, 3)
    ]
    assert {mode(path) for path in facts["private_files"]} == {0o600}
    public = load(facts["public_file"])
    assert isinstance(public, ThresholdKey)
    shares = [load(path) for path in facts["private_files"]]
    assert all(isinstance(share, KeyShare) and share.key == public for share in shares)
    arrangement = Threshold(2, 3, dealer="the data office")
    protocol = PaillierSum(arrangement, keys=tuple(shares))
    outcome = simulate(protocol, INPUTS, drop={"decrypt": {"decryptor 2"}})
    assert outcome.total.tolist() == [9, 2]
    assert any("the data office" in text for text in outcome.protection.assumptions)
    assert outcome.session.parameters == arrangement_of(
        f"arrangement=threshold-2-of-3,keys={facts['public_file']}"
    )
    assert outcome.session.parameters == arrangement_of(f"keys={facts['private_files'][1]}")
    for wrong in ("arrangement=threshold-3-of-3", "arrangement=keyholder"):
        with pytest.raises(Misuse, match=r"dealt as|another arrangement"):
            built(f"paillier:{wrong},keys={facts['public_file']}")
    with pytest.raises(Misuse, match="dealt as"):
        PaillierSum(Threshold(2, 3), keys=public)


def arrangement_of(options: str) -> bytes:
    """The parameters of a session like the one above, by what a command line says; the dealer is in the key."""
    return built(f"paillier:{options}").session(list(INPUTS), 2, 7, random=RANDOM).parameters


def test_clients_that_share_a_key_have_a_file_of_it(tmp_path: Path) -> None:
    (secret,) = made("ckks", "ours", "--out", tmp_path)["private_files"]
    assert mode(secret) == 0o600
    assert simulate(built(f"ckks:arrangement=shared,key={secret}"), INPUTS).total.tolist() == [9, 2]
    with pytest.raises(Misuse, match="SharedByClients only"):
        CKKSSum(KeyHolder(), key=secret)


@pytest.mark.parametrize(
    "arguments",
    [
        ("paillier", "../x", "--arrangement", "keyholder"),
        ("paillier", "x", "--arrangement", "nobody"),
        ("paillier", "x", "--arrangement", "threshold-4-of-3"),
        ("paillier", "x", "--arrangement", "threshold-2-of-101"),
        ("paillier", "x", "--arrangement", "threshold-2-of-3", "--dealer", " "),
        ("paillier", "x", "--arrangement", "keyholder", "--bits", 1024),
        ("paillier", "x", "--arrangement", "keyholder", "--bits", 2049),
        ("ckks", "a/b"),
    ],
)
def test_wrong_requests_exit_with_2_and_write_nothing(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    code, out, err = secagg("keys", *arguments, "--out", tmp_path / "keys")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.key"))


def test_keys_are_never_replaced(tmp_path: Path) -> None:
    for kind, options in (("paillier", ("--arrangement", "keyholder", "--bits", 2048)), ("ckks", ())):
        made(kind, "x", *options, "--out", tmp_path)
        kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
        assert secagg("keys", kind, "x", *options, "--out", tmp_path)[0] == 2
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_nothing_secret_is_printed(tmp_path: Path) -> None:
    options = ("--arrangement", "keyholder", "--bits", 2048, "--out", tmp_path)
    code, out, err = secagg("keys", "paillier", "x", *options, "--json")
    assert code == 0
    key = load(tmp_path / "x.paillier.key")
    assert isinstance(key, HolderKey)
    for secret in (str(int(key.secret.p)), hex(int(key.secret.p))[2:], key.sealing.hex()):
        assert secret not in out + err
