"""What the audit is worth: every planted defect is found by its named property; sound protocols fail nothing."""

import gc

import pytest

from fl.cli.audit import named
from fl.registry import PRIVACY
from protocols.audit import PROPERTIES, WhiteBox, audit
from secagg import SecAgg, SecAggPlus
from tests.defects import ALL
from tests.defects.forged import drawing_together
from tests.defects.pieces import malicious
from tests.defects.planting import Defect
from tests.defects.table import BUILT_INS, caught, main


def semi_honest() -> SecAgg:
    return SecAgg(threat="semi-honest")


def reusing() -> SecAggPlus:
    return SecAggPlus(setup="reuse")


def test_every_class_of_failure_is_planted_and_named_once() -> None:
    names = {p.name for p in PROPERTIES}
    assert len({d.name for d in ALL}) == len(ALL)
    assert {d.caught_by for d in ALL} == names, "every property is measured by a defect of its own"


@pytest.mark.parametrize("defect", ALL, ids=[d.name.replace(" ", "-") for d in ALL])
def test_each_defect_is_caught_by_its_named_property(defect: Defect) -> None:
    assert defect.caught_by in caught(defect, only=[defect.caught_by])


@pytest.mark.parametrize("name", ["keys kept by a module", "inputs kept by a module"])
def test_what_is_set_aside_from_the_collector_is_looked_through(name: str) -> None:
    [defect] = [d for d in ALL if d.name == name]
    gc.freeze()
    try:
        assert defect.caught_by in caught(defect, only=[defect.caught_by])
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("protocol", [SecAgg, SecAggPlus, semi_honest, malicious, drawing_together, reusing])
def test_sound_protocols_fail_nothing(protocol: type[SecAgg]) -> None:
    report = audit(WhiteBox(protocol), examples=5)
    assert [(p.name, p.reason) for p in report.properties if p.status.value == "failed"] == []


def test_the_table_audits_every_built_in_by_name() -> None:
    noise = {"sample-dp", "client-dp", "distributed-dp", "local-dp"}
    shapes = {"low-rank", "few-bits", "random-k", "norm-bound"}
    assert set(BUILT_INS) == set(PRIVACY.names()) - noise - shapes


@pytest.mark.parametrize(
    "name", ["paillier:key_bits=2048", "ckks", "ckks:arrangement=shared", "secagg+", "secagg:setup=reuse"]
)
def test_what_is_made_for_the_wire_is_no_secret(name: str) -> None:
    chosen = ["secrets-stay-with-their-owner", "secrets-die-with-the-session"]
    report = audit(named(name), examples=1, only=chosen)
    assert [p.reason for p in report.properties if p.status.value != "passed"] == []


def test_a_server_that_is_trusted_is_not_judged_on_what_it_could_forge() -> None:
    only = ["forged-requests-refused", "replays-refused", "cheating-clients-are-named", "exact-sum"]
    statuses = [
        {p.name: p.status.value for p in audit(WhiteBox(make), examples=2, only=only).properties}
        for make in (semi_honest, SecAgg)
    ]
    assert statuses[0] == {**dict.fromkeys(only, "not-claimed"), "exact-sum": "passed"}
    assert statuses[1] == dict.fromkeys(only, "passed")


@pytest.mark.slow
def test_the_whole_table_is_as_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "0 wrong" in capsys.readouterr().out
