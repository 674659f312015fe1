"""A launcher that runs only the apps that a site has reviewed, whatever the SuperLink sends.

What belongs here: writing the launcher, and what it does. What does not: how flwr loads apps (`compat`).

In Flower an app's code comes with the run. A SuperNode starts `flwr-clientapp` from its PATH for every message, in
both isolation modes; a launcher of that name, first in the PATH, compares the bundle with the ones that the site has
reviewed, before any of it is unpacked:

    flwr build --app reviewed-app
    python -m fl.flower.launcher /srv/secagg/bin reviewed-app.fab
    PATH=/srv/secagg/bin:$PATH flower-supernode ...
"""

import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from protocols.errors import Misuse, PolicyRefusal
from protocols.store import write_atomic

LAUNCHER = "flwr-clientapp"


def write_launcher(folder: Path, bundles: Iterable[Path]) -> Path:
    """Write the launcher for these bundles (.fab files) into `folder` and return its path.

    It runs under this Python, with this toolkit. Raises Misuse for a bundle that cannot be read, or none.
    """
    digests = []
    for bundle in bundles:
        try:
            digests.append(hashlib.sha256(bundle.read_bytes()).hexdigest())
        except OSError as error:
            raise Misuse(f"{bundle} cannot be read: {error.strerror}") from None
    if not digests:
        raise Misuse("expected the bundles (.fab files) that may run here")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    root = str(Path(__file__).parents[2])
    code = f"import sys\nsys.path.insert(0, {root!r})\nfrom fl.flower.launcher import run\nrun({digests!r})\n"
    write_atomic(folder / LAUNCHER, f"#!{sys.executable}\n{code}".encode(), 0o755)
    return folder / LAUNCHER


def run(digests: Sequence[str]) -> None:
    """Be `flwr-clientapp` for bundles with one of these SHA-256 digests; answer all others with an error."""
    from fl.flower.compat import run_clientapp

    def check(bundle: bytes) -> str:
        found = hashlib.sha256(bundle).hexdigest()
        if found not in digests:
            raise PolicyRefusal(f"pinned: this site runs apps that it has read, not the bundle {found[:16]}")
        return found

    run_clientapp(check)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python -m fl.flower.launcher FOLDER BUNDLE.fab ...")
    print(write_launcher(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]]))
