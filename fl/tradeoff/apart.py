"""Whether the data of a search hold an example of the sweep's: by what the examples are, not by names.

What does not belong here: parts of a data set (`fl.data.part`), the search.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fl.data import DataSet
from fl.registry import DATA
from fl.run_config import RunConfig
from protocols.errors import Misuse


def require_apart(config: RunConfig, data: str | Mapping[str, Any]) -> None:
    """Raises Misuse where an example of `data` is one of the sweep's, inputs alike bit for bit, training and test parts
    of both. The two parts of one data set share none, by its row numbers or clients: they may hold equal ones, for
    there are people who are alike.
    """
    if _complementary(config.data, data):
        return
    own, searched = (set(_digests(config, of)) for of in (config.data, data))
    if common := len(own & searched):
        raise Misuse(
            f"[tradeoff.search]: {common} of its {len(searched)} examples are the sweep's own, so that every trial "
            'would be one more release of them; name data apart, such as "part:of=...,which=apart" beside '
            '"part:of=..." of the sweep, of one share'
        )


def _complementary(one: object, other: object) -> bool:
    specs = [DATA.parse(of) for of in (one, other)]  # type: ignore[arg-type]  # as a run's key has it
    told = [{"which": "rest", "share": 0.25, **spec.options} for spec in specs]
    which = {each.pop("which") for each in told}
    alike = [{**each, "share": float(str(each["share"]))} for each in told]
    return (
        [spec.name for spec in specs] == ["part"] * 2 and which == {"rest", "apart"} and alike[0] == alike[1]
    )


def _digests(config: RunConfig, data: Any) -> Iterator[bytes]:
    folder = None if config.data_dir is None else Path(config.data_dir)
    found: Any = DATA.build(data, data_dir=folder, batch_size=config.batch_size)
    if isinstance(found, DataSet):
        blocks: Any = (found.x_train, found.x_test)
    else:  # a function's own loaders, read once: what they change at random is not recognised
        blocks = (_inputs(batch) for loader in found.values() for batch in loader)
    for block in blocks:
        for row in np.asarray(block):
            yield hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest()


def _inputs(batch: Any) -> Any:
    several = list(batch.values()) if isinstance(batch, Mapping) else batch
    return several[0] if isinstance(several, list | tuple) else several
