"""Coverage-guided fuzzing of one decoder, where atheris installs.

`python -m tests.fuzz.secagg.run secagg.messages.Dealing`

The same target runs under hypothesis in `test_decoders`, everywhere.
"""

import sys

from tests.fuzz.secagg.test_decoders import KEPT, MESSAGES, STATES, name_of, target


def main(arguments: list[str]) -> None:
    """Fuzz the decoder that the first argument names; the rest goes to atheris."""
    import atheris  # not on every platform, so not a dependency

    kinds = {name_of(kind): kind for kind in (*MESSAGES, *KEPT, *STATES)}
    if len(arguments) < 2 or arguments[1] not in kinds:
        sys.exit("name one decoder of: " + ", ".join(sorted(kinds)))
    kind = kinds[arguments.pop(1)]
    atheris.Setup(arguments, lambda data: target(kind, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
