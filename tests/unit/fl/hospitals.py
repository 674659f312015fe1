"""A table of four hospitals."""

from pathlib import Path

HOSPITALS = ["north", "south", "west", "east"]


def table(path: Path, rows: int = 120) -> Path:
    """Age decides the outcome; hospitals measure a second column on scales of their own."""
    lines = ["age,hospital,smoker,score,outcome"]
    for i in range(rows):
        site, outcome = HOSPITALS[i % 4], "ill" if i % 60 > 30 else "well"
        lines.append(f"{20 + i % 60},{site},{'yes' if i % 3 else 'no'},{(i % 7) * 10 ** (i % 4)},{outcome}")
    path.write_text("\n".join(lines) + "\n")
    return path
