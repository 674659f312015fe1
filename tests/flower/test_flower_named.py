"""A Federation that its clients' app names: imported, with torch, where somebody trains or evaluates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from fl import Federation
from fl.flower.messages import unpack_request
from fl.flower.named import federation_app
from fl.network.messages import START, STEP
from fl.network.site import Site
from secagg import SecAggPlus
from tests.flower.test_flower_apps import SITES, federation, grid_of, rostered, same, serve
from tests.flower.test_flower_evaluation import evaluating

PLACE = f"{__name__}:NAMED"
NAMED: Any = None


def layers(site: Site) -> list[Any]:
    if site.signed is None:
        return [SecAggPlus(setup="reuse", dropout=0.25)]
    return [SecAggPlus(setup="reuse", dropout=0.25, threat="malicious", credentials=site.credentials())]


class Watched:
    """A federation that notes the requests that it is imported for: their kinds, and whether it was to be measured."""

    def __init__(self, make: Callable[[], Federation]) -> None:
        self.make, self.asked = make, list[str]()

    def client_app(self, privacy: Any) -> Any:
        app = self.make().client_app(privacy=privacy)

        def call(message: Message, context: Context) -> Message:
            self.asked.append(unpack_request(message.content, None)[0].kind)
            return app(message, context)

        return call


@pytest.mark.parametrize("make", [federation, evaluating])
def test_a_node_on_a_roster_imports_the_federation_to_train_and_to_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Federation]
) -> None:
    watched = Watched(make)
    monkeypatch.setitem(globals(), "NAMED", watched)
    grid, given = rostered(tmp_path, {})
    grid.apps = {n: (federation_app(PLACE, layers), config) for n, (_, config) in grid.apps.items()}
    result = serve(grid, make(output=tmp_path / "run"), 2, privacy=layers, **given)
    assert [entry.survivors for entry in result.history] == [SITES, SITES]
    assert same(result.model, make().fit(2).model)
    assert (tmp_path / "keys" / "site-3" / "kept-head.txt").exists()
    measured = make is evaluating
    assert set(watched.asked) == ({START, STEP} if measured else {START})
    assert [entry.metrics for entry in result.history] == [entry.metrics for entry in make().fit(2).history]


def test_without_a_roster_the_federation_says_who_a_node_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(federation)
    monkeypatch.setitem(globals(), "NAMED", watched)
    grid = grid_of(tmp_path)
    configs = {n: {**config, "secagg-site": str(tmp_path / f"n{n}")} for n, (_, config) in grid.apps.items()}
    grid.apps = {n: (federation_app(PLACE, layers), config) for n, config in configs.items()}
    result = serve(grid, federation(output=tmp_path / "run"), 1, privacy=layers)
    assert result.history[0].survivors == SITES
    assert STEP in watched.asked


def test_a_federation_that_is_not_there_is_a_refusal(tmp_path: Path) -> None:
    grid, given = rostered(tmp_path, {})
    grid.apps = {n: (federation_app("json:nothing", layers), config) for n, (_, config) in grid.apps.items()}
    result = serve(grid, federation(output=tmp_path / "run"), 1, privacy=layers, **given)
    assert all("AttributeError" in why for why in result.history[0].refusals.values())
