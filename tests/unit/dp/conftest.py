"""Ghost clipping makes every row twice here, a few examples at a time, as it does with models of any size."""

import pytest

from dp.sample import remade
from dp.sample.hooks import RowHooks


@pytest.fixture(autouse=True)
def _no_rows_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowHooks, "_room", lambda self, *given: not self.again)
    monkeypatch.setattr(remade, "BLOCK", 200)
