"""The layers of the app, by name, alike on both sides."""

from typing import Any


def layers(name: str) -> list[Any]:
    if name == "none":
        return []
    if name == "secagg+":
        from secagg import SecAggPlus

        return [SecAggPlus(dropout=0.33)]
    if name == "soak":
        from dp import ClientDP
        from secagg import SecAggPlus

        # so much noise that the ledger has a price for all rounds of a soak: beyond an epsilon of about 50 it has none
        return [ClientDP(noise_multiplier=8.0, clip=1.0), SecAggPlus()]
    if name == "fresh":
        from secagg import SecAggPlus

        return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0, setup="fresh")]
    if name == "reuse":
        from secagg import SecAggPlus

        return [SecAggPlus(setup="reuse", threat="semi-honest", dropout=0.25, collusion=0.0)]
    raise ValueError(name)
