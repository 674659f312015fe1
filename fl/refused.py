"""Names of aggregation rules that no secure sum can carry, each with the reason and the nearest rule that one can.

They compare, sort or drop single updates, which is what a secure sum hides. Does not belong here: rules that sums carry
(`fl.strategies`).
"""

MEDIAN = "rfa (a geometric median by weighted sums) or group-median (a median over the sums of random groups)"
CLIP = "norm-bound (a clip at every client), or rfa"
_SORTS = "it sorts the clients' values, coordinate by coordinate"
_REASONS: dict[str, tuple[str, str]] = {
    "krum": ("it compares every client's update with all others", MEDIAN),
    "multi-krum": ("it compares every client's update with all others", MEDIAN),
    "bulyan": ("it runs Krum over single updates, and trims what is left", MEDIAN),
    "trimmed-mean": (_SORTS, CLIP),
    "median": (_SORTS, "group-median (a median over the sums of random groups)"),
    "fltrust": ("it weighs every update by its angle to the server's own", CLIP),
    "foolsgold": ("it compares the clients' histories of updates", MEDIAN),
    "zeno": ("it scores every update on the server's data", CLIP),
    "power-of-choice": ("it asks clients by their losses, which it would hand the server", "a random choice"),
}  # fmt: skip


def refusal(name: str) -> str | None:
    """Return why no secure sum carries the rule `name`, and what to take; None for any other name."""
    known = {key.replace("-", ""): key for key in _REASONS}
    key = known.get(name.lower().replace("-", "").replace("_", "").removeprefix("coordinate"))
    if key is None:
        return None
    why, instead = _REASONS[key]
    return f"{name} needs single updates: {why}, and a secure sum shows none: take {instead}"
