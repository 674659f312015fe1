"""`python -m tests.mutation [FOLDER ...]`: make mutants, let the tests meet them, write docs/mutation.md.

The folders (`dp`, `fl/round`, `secagg/client`; all by default) are met in that order, and the page keeps what it knew
of others. A run that was interrupted goes on where it was; remove the folder mutants/ to begin anew. After `page` only
the page is written. What does not belong here: the tests' side (plugin), the reasons (unnoticed).
"""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import commit
from tests.mutation import page, stillborn

MUTANTS = Path("mutants")
TESTS = (
    "tests/vectors",
    "tests/contracts/test_plain.py",
    "tests/contracts/test_secagg.py",
    "tests/property/secagg",
    "tests/property/test_codec.py",
    "tests/property/test_masking.py",
    "tests/property/test_packing.py",
    "tests/property/test_quantise.py",
    "tests/property/test_updates.py",
    "tests/unit/he/test_paillier_contributions.py",
    "tests/unit/he/test_paillier_decryptors.py",
    "tests/unit/he/test_paillier_oracle.py",  # helpers, which masked sums have none of
    "tests/unit/protocols",
    "tests/unit/secagg",
    "tests/unit/test_parameters.py",
    "tests/unit/test_plan_command.py",
    "tests/unit/test_simulate.py",
    "tests/unit/test_stack.py",
    "tests/unit/dp",
    "tests/unit/fl",
    "tests/unit/test_federation.py",
    "tests/unit/test_resume.py",
)
TOO_LONG = (
    "fresh_process",
    "processes",
    "full_disk",
    "ten_thousand",
    "one_share_too_few",
    "import_the_compiler",
    "every_round_is_exact",
    "test_threads",
    "stateful",
    "test_shamir",
)


def make() -> None:
    """Write every mutant of every function into the folder, and set aside those that need no test."""
    from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants

    MUTANTS.mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    create_mutants(os.cpu_count() or 1)
    (MUTANTS / "commit").write_text(commit()[:7])
    stillborn.write(MUTANTS)


def meet(folders: list[str]) -> None:
    """Run the tests against them, in the folder, where the changed packages come first."""
    leave_out = " and ".join(f"not {name}" for name in TOO_LONG)
    command = [sys.executable, "-m", "pytest", *TESTS, "-q", "-m", "not slow", "-k", leave_out]
    part = os.environ.get("SECAGG_MUTATION", "1")
    subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=MUTANTS,
        env=os.environ | {"SECAGG_MUTATION": part, "SECAGG_MUTATED": " ".join(folders)},
        check=True,
    )


def main() -> int:
    """0 if every mutant was met and every survivor is explained, else 1."""
    words = sys.argv[1:]
    only_page = words[:1] == ["page"]
    folders = words[only_page:] or list(page.PACKAGES)
    if not only_page:
        if not (MUTANTS / "aside.jsonl").is_file():
            make()
        meet(folders)
    return page.write(MUTANTS, folders)


if __name__ == "__main__":
    raise SystemExit(main())
