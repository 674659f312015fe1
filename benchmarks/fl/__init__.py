"""Suite `fl`: federated training end to end. Each command is a module; here they are gathered.

`--case NAME` means the command NAME, so that every suite can be asked in one way.
"""

from typing import Any

import typer

from benchmarks.fl import (
    attacks,
    buffered,
    clusters,
    homomorphic,
    lora,
    memory,
    niid,
    overhead,
    robust,
    scale,
    text,
    workers,
    wrap,
)


class _Suite(typer.Typer):
    """A suite whose commands can be named by `--case` too."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = list(kwargs.get("args") or [])
        if "--case" in given[:-1]:
            at = given.index("--case")
            kwargs["args"] = [given[at + 1], *given[:at], *given[at + 2 :]]
        return super().__call__(*args, **kwargs)


app = _Suite(add_completion=False, help="Federated training end to end.")
overhead.register(app)
homomorphic.register(app)
attacks.register(app)
scale.register(app)
workers.register(app)
memory.register(app)
wrap.register(app)
lora.register(app)
niid.register(app)
robust.register(app)
clusters.register(app)
text.register(app)
buffered.register(app)
