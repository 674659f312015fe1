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
    """How rounds are run. Raises Misuse, naming the option, for a value of another type or range.

    local_epochs >= 1. fraction of the clients awaited per round, in (0, 1]. sampling: "fixed" (that share,
    without replacement), "poisson" (each client by itself), "round-robin" (that share in turn), "cyclic" (fixed groups
    of at most that share, in turn) or "arrivals" (whoever comes by itself and, by its layers' rules, may). windows:
    when clients are there, "NAMES=FIRST-LAST" of the run's rounds or "NAMES=FIRST-LAST/PERIOD" of every PERIOD rounds,
    NAMES a pattern (as of a shell); whom no window names is always there. spare: share of clients asked beyond those
    awaited, >= 0: who is not among the first to answer is left out. dropout: share of the asked that leave at random,
    before or after their input, in [0, 1) (simulation). delays: sigma >= 0 of the lognormal time, median 1, that a
    simulated client takes to answer (0: none). bits (2 to 32), range, weight_cap: how floats become
    integers (`protocols.stack.Numbers`). integers: "keep", "sum" or "refuse" for
    integer tensors. parameters: what is sent: "trained" (what requires gradients), "all", or patterns of
    names ("head.*"). buffers: "sum" (running statistics travel with the update, and are refused beside layers that add
    noise) or "local" (they never leave a client, which goes on with its own; the server's stay as they were made).
    metrics: names of what `train` returns that are summed with the update. min_survivors: a round with fewer is
    abandoned; 1 lets a lone client train (`PrivateStrategy`, whose strategy waits for two nodes, has 2), and what a
    secure sum or a layer demands is never lowered. workers: processes that train beside this one, for the engine in
    memory on the CPU; the same model bit for bit as workers=1 under torch.set_num_threads(1), for each trains on one
    thread; what a training function, a data set or a sampler changes outside the model stays in its process.
    client_timeout: seconds that a client may take to train (> 0, None: any), in a worker process, which is then ended
    and replaced, or on Flower (its server's `timeout` for every message trip); refused where one process plays all.
    stay_local: patterns (as of a shell) of names of the model's entries that never leave a client, which keeps its own.
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
