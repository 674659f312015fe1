"""Figures of the suite for the docs, drawn from saved results: time and bytes against values, clients and key length,
and masks beside homomorphic sums. Nothing is measured here.
"""

from typing import TYPE_CHECKING, Any

from benchmarks.harness import Result, read_all
from benchmarks.plots import Line, lines
from benchmarks.plots import draw as draw_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TIMES = {"encrypt_s": "one client encrypts", "add_s": "the server adds", "decrypt_s": "the sum is opened"}


def draw() -> None:
    """Draw every figure whose results are there."""
    for scheme, key_bits in (("paillier", 2048), ("ckks", None)):
        name = "Paillier, 2048-bit keys" if key_bits else "CKKS"
        _times(
            f"he-{scheme}-values",
            scheme,
            "values",
            f"values per client ({name}, 10 clients)",
            key_bits,
            clients=10,
        )
        _times(
            f"he-{scheme}-clients",
            scheme,
            "clients",
            f"clients ({name}, 10,000 values)",
            key_bits,
            values=10_000,
        )
    _times(
        "he-paillier-keys",
        "paillier",
        "key_bits",
        "key length, bits (10 clients, 10,000 values)",
        None,
        values=10_000,
        clients=10,
    )
    _bytes()
    _compared()


def _found(scheme: str, **fixed: Any) -> list[Result]:
    wanted = {"scheme": scheme, "arrangement": "keyholder", "bits": 24} | fixed
    return [r for r in read_all(f"he.{scheme}-*") if all(r.arguments.get(k) == v for k, v in wanted.items())]


def _series(results: list[Result], along: str, figure: str) -> Line:
    points = sorted((r.arguments[along], r.figures[figure]) for r in results)
    return [float(x) for x, _ in points], [y for _, y in points]


def _times(name: str, scheme: str, along: str, label: str, key_bits: int | None, **fixed: Any) -> None:
    fixed |= {"key_bits": key_bits} if along != "key_bits" else {}
    results = _found(scheme, **fixed)
    if len(results) > 1:
        series = {text: _series(results, along, key) for key, text in TIMES.items()}
        lines(name, series, x=label, y="seconds", log_x=along != "key_bits", log_y=True)


def _bytes() -> None:
    series: dict[str, Line] = {}
    for key_bits in (2048, 3072):
        results = _found("paillier", clients=10, key_bits=key_bits)
        series[f"Paillier, {key_bits}-bit keys"] = _series(results, "values", "bytes_per_value")
    for arrangement, text in (("keyholder", "public key"), ("shared", "symmetric")):
        results = _found("ckks", clients=10, arrangement=arrangement)
        series[f"CKKS, {text}"] = _series(results, "values", "bytes_per_value")
    drawn = {label: line for label, line in series.items() if len(line[0]) > 1}
    if drawn:
        lines(
            "he-bytes",
            drawn,
            x="values per client (24 bits, 10 clients)",
            y="upload, bytes per value",
            log_x=True,
        )


def _compared() -> None:
    """Bars: a client's seconds and bytes under each protocol, with whom it trusts."""
    for found in read_all("he.compare-*"):
        rows = found.figures["rows"]

        def paint(axes: "Axes", rows: list[dict[str, Any]] = rows) -> None:
            labels = [
                f"{row['protocol']}, {row['upload_bytes_per_value']:.1f} bytes per value\n{row['trust']}"
                for row in reversed(rows)
            ]
            axes.barh(labels, [row["client_s"] for row in reversed(rows)])
            axes.tick_params(axis="y", labelsize=8)
            axes.set(xscale="log", xlabel="seconds of one client")

        draw_axes("he-compared", paint)
