"""What a session says of itself, word for word: a statement changes on purpose, with this file, or not at all.

`python -m tests.vectors.secagg.test_statements` prints the file.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from protocols import PlainSum
from protocols.randomness import SystemRandom
from protocols.summation import SecureSum
from secagg import Credentials, SecAgg, SecAggPlus

FILE = Path(__file__).with_name("statements.json")
NAMES = [f"site-{i}" for i in range(60)]
KNOWN = Credentials.simulated(NAMES)
THREATS = ("semi-honest", "semi-malicious", "malicious")
Make = Callable[[], SecureSum]


def masked(kind: type[SecAgg] | type[SecAggPlus], threat: str, setup: str, **named: Any) -> Make:
    known = KNOWN if threat == "malicious" else None
    return lambda: kind(0.0, 0.0, threat, setup=setup, credentials=known, **named)


CASES: dict[str, Make] = {"none": PlainSum}
for _threat in THREATS:
    for _setup in ("fresh", "reuse"):
        CASES[f"secagg, {_threat}, {_setup}"] = masked(SecAgg, _threat, _setup)
        CASES[f"secagg+, {_threat}, {_setup}, beacon"] = masked(
            SecAggPlus, _threat, _setup, neighbours=20, threshold=14, beacon=b"light"
        )
CASES["secagg+, malicious, fresh"] = masked(SecAggPlus, "malicious", "fresh", neighbours=20, threshold=14)
CASES["secagg+, semi-malicious, fresh"] = masked(
    SecAggPlus, "semi-malicious", "fresh", neighbours=20, threshold=14
)


def stated(case: str) -> dict[str, Any]:
    protocol = CASES[case]()
    session = protocol.session(NAMES, 5, 7, random=SystemRandom())
    return dict(json.loads(json.dumps(asdict(protocol.protection(session)))))


@pytest.mark.parametrize("case", CASES)
def test_a_statement_is_word_for_word_the_known_one(case: str) -> None:
    assert stated(case) == json.loads(FILE.read_text())[case]


if __name__ == "__main__":
    print(json.dumps({case: stated(case) for case in CASES}, indent=1))
