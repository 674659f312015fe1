"""What a party has in its own folder on NVFlare: credentials, keys of homomorphic sums; and evaluations on its data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="the extra nvflare is not installed")

from fl.round import RoundResult
from he.arrangements import Threshold
from he.ckks.keys import SharedKey
from he.paillier import save
from protocols.identity import Identity
from tests.nvflare import federations
from tests.nvflare.direct import Deployment, rostered
from tests.nvflare.federations import DECRYPTORS, OWN_KEY, SITES
from tests.nvflare.test_nvflare_rounds import Totals, kept, place
from tests.nvflare.test_nvflare_rounds import totals as totals
from tests.paillier_fixed import ring


def played(deployment: Deployment) -> RoundResult:
    assert deployment.play(1) == []
    return kept(deployment).history[0]


def test_the_malicious_model_takes_each_sites_credentials_from_its_own_folder(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, place("signed"), SITES, simulated=False)
    rostered(deployment)
    result = played(deployment)
    assert (result.abandoned, result.survivors) == (None, SITES)
    statement = kept(deployment).statement
    assert statement is not None
    assert statement["protection"]["threat"] == "malicious"


def test_a_site_whose_key_the_roster_does_not_bind_takes_no_part(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, place("signed"), SITES, simulated=False)
    rostered(deployment)
    (deployment.own("site-2") / "own.key").unlink()
    Identity.generate("site-2").save(deployment.own("site-2") / "own.key")
    result = played(deployment)
    assert result.survivors == tuple(name for name in SITES if name != "site-2")
    assert "not the key that the roster binds" in result.refusals["site-2"]


def paillier_keys(folder_of: Callable[[str], Path]) -> None:
    """What the dealer hands out: a share to each decryptor, what is public to everybody else."""
    dealt = ring(Threshold(2, 3))
    for name in ("server", *SITES):
        save(dealt.public, folder_of(name) / OWN_KEY)
    for name, share in zip(DECRYPTORS, dealt.shares, strict=True):
        save(share, folder_of(name) / OWN_KEY)


@pytest.mark.parametrize("away", [(), DECRYPTORS[:1], DECRYPTORS[:2]], ids=["all", "one away", "two away"])
def test_decryptors_open_a_threshold_sum_with_the_share_that_each_has(
    tmp_path: Path, away: tuple[str, ...], totals: Totals
) -> None:
    deployment = Deployment(
        tmp_path,
        place("threshold"),
        (*SITES, *DECRYPTORS),
        simulated=False,
        before=lambda name, message: None if name in away else message,
    )
    rostered(deployment, dict.fromkeys(DECRYPTORS, "decryptor"))
    paillier_keys(lambda name: deployment.own(name))
    said = deployment.play(1)
    result = kept(deployment).history[0]
    if len(away) == 2:
        assert result.abandoned is not None
        assert said[0].startswith("NoResult")
        return
    assert (said, result.abandoned, result.survivors) == ([], None, SITES)
    assert federations.plain().fit(1).history[0].survivors == SITES
    ours, in_memory = (found[-1][1].total for found in totals.values())
    assert np.array_equal(ours, in_memory)


def test_clients_that_share_a_ckks_key_read_it_from_their_folders_and_the_server_has_none(
    tmp_path: Path, totals: Totals
) -> None:
    deployment = Deployment(tmp_path, place("shared"), SITES, simulated=False)
    deployment.allow()
    key = SharedKey.generate()
    for name in SITES:
        key.save(deployment.own(name) / OWN_KEY)
    assert played(deployment).survivors == SITES
    federations.plain().fit(1)
    ours, in_memory = (found[-1][1].total for found in totals.values())
    assert np.array_equal(ours, in_memory)
    assert not (deployment.own("server") / OWN_KEY).exists()


def test_an_evaluation_gives_the_numbers_of_the_run_in_memory(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, place("evaluating"), SITES)
    assert deployment.play(2) == []
    ours = [result.metrics for result in kept(deployment).history]
    assert ours == [result.metrics for result in federations.evaluating().fit(2).history]
    assert set(ours[0]) == {"clients.loss", "clients.accuracy", "clients.auroc"}
