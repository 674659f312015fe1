"""The options of a run that are plain values: `Federation(..., **options)`, config.toml and `secagg run` share them.

What belongs here: names, types, defaults and help texts, once. What does not: their checks (`arguments`), options that
only the command has (`run_config`), objects such as a model or layers (`federation_setup`).
"""

from dataclasses import dataclass, field, fields
from typing import TypeVar, get_args

from fl import arguments
from protocols.stack import Numbers

T = TypeVar("T")


def option(default: T, help: str) -> T:
    """Return a field: its default and the help text of its option."""
    made: T = field(default=default, metadata={"help": help})
    return made


@dataclass(frozen=True)
class RunOptions:
    """How rounds are run: the keywords of `Federation`, and of `secagg run`, that are plain values.

    Local work:

    - local_epochs: epochs per round, >= 1 (default: 1).
    - seed: equal seeds give equal results without noise layers (default: 0).
    - device: "cpu" or "cuda" (default: "cpu").
    - workers: processes that train, >= 1, in memory on the CPU. The model is that of workers=1 under
      `torch.set_num_threads(1)`, bit for bit; what the loop changes outside the model stays in its process
      (default: 1).
    - client_timeout: seconds that a client may take to train, > 0, on Flower or in a worker process, which is then
      ended and replaced; refused where one process plays all (default: None, any).

    Who takes part:

    - fraction: share of the clients awaited per round, in (0, 1] (default: 1).
    - sampling: "fixed" (that share, without replacement; default), "poisson" (a coin per client), "round-robin"
      (that share in turn), "cyclic" (fixed groups in turn) or "arrivals" (whoever comes and, by its layers' rules,
      may).
    - windows: when clients are there: "NAMES=FIRST-LAST" in rounds of the run, or "NAMES=FIRST-LAST/PERIOD" in
      every PERIOD rounds; NAMES is a shell pattern. A client that no window names is always there (default: none).
    - spare: share of clients asked beyond those awaited, >= 0; the last to answer are left out (default: 0).
    - dropout: share of the asked that leave at random stages, in [0, 1); simulated (default: 0).
    - delays: sigma >= 0 of a simulated client's lognormal time to answer, median 1 (default: 0, no delays).
    - min_survivors: a round with fewer clients in its total is abandoned, >= 1; what a secure sum or a layer demands
      is never lowered (default: 1, which lets a lone client train; `fl.flower.PrivateStrategy` has 2).

    What travels:

    - parameters: "trained" (what requires gradients; default), "all", or patterns of names ("head.*").
    - stay_local: patterns of names of entries that never leave a client, which keeps its own (default: none).
    - buffers: running statistics: "sum" (they travel, and layers that add noise refuse them; default) or "local"
      (each client goes on with its own, and the server's stay as they were made).
    - integers: integer tensors: "keep" (the server's; default), "sum" or "refuse".
    - bits: per value of the quantiser, 2 to 32 (default: 16).
    - range: public bound on an update's coordinates, > 0 (default: None, from layers or the model).
    - weight_cap: public cap on a client's examples, >= 1 (default: 10,000).
    - metrics: what `train` returns and is summed with the update (default: loss and accuracy).
    - delta: of the privacy account, in (0, 1) (default: None, the layers').

    Raises Misuse, naming the option, for a value of another type or range.

        Federation(make, loaders, fraction=0.5, bits=20, seed=1)   # it makes these:
        RunOptions(fraction=0.5, bits=20, seed=1)
    """

    local_epochs: int = option(1, "Local epochs per round.")
    fraction: float = option(1.0, "Share of the clients awaited per round.")
    sampling: str = option("fixed", "How they are chosen: fixed, poisson, round-robin, cyclic or arrivals.")
    windows: tuple[str, ...] = option(
        (), "When clients are there, NAMES=FIRST-LAST[/PERIOD] in rounds, such as ward-*=1-8/24; repeat."
    )
    spare: float = option(0.0, "Share of clients asked beyond those awaited, against stragglers.")
    dropout: float = option(0.0, "Share of the asked clients that leave, at random stages.")
    delays: float = option(0.0, "Sigma of the simulated clients' lognormal delays, median 1 (0: none).")
    seed: int = option(0, "Equal seed, equal result, without DP layers.")
    bits: int = option(16, "Bits per value of the quantiser.")
    range: float | None = option(None, "Public range of an update's coordinates.")
    weight_cap: int = option(10_000, "Public cap on a client's examples.")
    integers: str = option("keep", "Integer tensors: keep, sum or refuse.")
    parameters: str | tuple[str, ...] = option(
        "trained", "What is sent: trained (what requires gradients), all, or a pattern of names."
    )
    buffers: str = option("sum", "Running statistics: sum, or local (they never leave a client).")
    stay_local: tuple[str, ...] = option((), "Entries of the model that never leave a client, by pattern.")
    metrics: tuple[str, ...] = option(("loss", "accuracy"), "A training metric that is summed; repeat.")
    min_survivors: int = option(1, "A round with fewer is abandoned.")
    delta: float | None = option(None, "Delta of the privacy account.")
    device: str = option("cpu", "cpu or cuda.")
    workers: int = option(
        1,
        "Processes that train, for the engine in memory on the CPU; 1 for a loop that keeps state of its own.",
    )
    client_timeout: float | None = option(
        None, "Seconds after which a client that hangs is left out (workers, Flower)."
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None or type(None) not in get_args(item.type):
                # NumPy's numbers become Python's: they are kept as JSON
                object.__setattr__(self, item.name, arguments.checked(item.name, value))

    @property
    def numbers(self) -> Numbers:
        """How floats become integers."""
        return Numbers(self.bits, self.range, self.weight_cap)
