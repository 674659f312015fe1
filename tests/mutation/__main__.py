"""`python -m tests.mutation [again | page] [FOLDER ...]`: make mutants, have tests meet them, write docs/mutation.md.

The folders (`dp`, `fl/round`, `secagg/client`; all by default) are met in that order, each without the folders in it,
and the page keeps what it knew of others. A run that was interrupted goes on where it was; remove the folder mutants/
to begin anew. `again` has the tests as they are now meet those that none has noticed and nobody has
explained, `page` only writes the page. What does not belong here: the tests' side (plugin), the reasons (unnoticed).
"""

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import commit
from tests.mutation import page, stillborn

MUTANTS = Path("mutants")
SUMS = (
    "tests/vectors",
    "tests/contracts/test_plain.py",
    "tests/contracts/test_secagg.py",
    "tests/property/secagg",
    "tests/property/test_codec.py",
    "tests/property/test_masks.py",
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
)
PRIVACY = (
    "tests/fuzz/test_event_json.py",
    "tests/vectors/test_formats.py",
    "tests/vectors/test_runs.py",
    "tests/unit/dp",
    "tests/unit/fl",
    "tests/unit/test_fl_account.py",
    "tests/unit/test_tradeoff_search.py",
)
ROUNDS = (
    "tests/vectors/test_round_vectors.py",
    "tests/vectors/test_runs.py",
    "tests/flower/test_flower_abandoned.py",  # all in one process
    "tests/flower/test_flower_account.py",
    "tests/flower/test_flower_asked.py",
    "tests/flower/test_flower_broadcast.py",
    "tests/flower/test_flower_buffers.py",
    "tests/flower/test_flower_lies.py",
    "tests/flower/test_flower_privacy.py",
    "tests/flower/test_flower_record.py",
    "tests/flower/test_flower_resume.py",
    "tests/flower/test_flower_rounds.py",
    "tests/unit/dp/test_distributed_correlated.py",
    "tests/unit/fl",
    "tests/unit/test_federation.py",
    "tests/unit/test_resume.py",
    "tests/unit/test_stack.py",
)
NOISE = (
    "tests/unit/dp/test_correlated.py",
    "tests/unit/dp/test_correlated_rows.py",
    "tests/unit/dp/test_distributed_correlated.py",
    "tests/unit/dp/test_mechanisms.py",
    "tests/unit/dp/test_samples.py",
)
SAMPLE = (
    "tests/unit/dp/test_dp_layer_refusals.py",
    "tests/unit/dp/test_dp_sample.py",
    "tests/unit/dp/test_dp_sample_exact.py",
    "tests/unit/dp/test_dp_sample_rows.py",
    "tests/unit/dp/test_layer_numbers.py",
    "tests/unit/dp/test_sample_broken.py",
    "tests/unit/dp/test_sample_checks.py",
    "tests/unit/dp/test_sample_engine.py",
    "tests/unit/dp/test_sample_gradients.py",
    "tests/unit/dp/test_sample_layer.py",
    "tests/unit/dp/test_sample_layout.py",
    "tests/unit/dp/test_sample_loops.py",
    "tests/unit/dp/test_sample_losses.py",
    "tests/unit/dp/test_sample_memory.py",
    "tests/unit/dp/test_sample_memory_names.py",
    "tests/unit/dp/test_sample_memory_walk.py",
    "tests/unit/dp/test_sample_modules.py",
    "tests/unit/dp/test_sample_optimizer.py",
    "tests/unit/dp/test_sample_packed.py",
    "tests/unit/dp/test_sample_pieces.py",
    "tests/unit/dp/test_sample_secret_draws.py",
    "tests/unit/dp/test_sample_steps.py",
    "tests/unit/dp/test_sample_sums.py",
    "tests/unit/dp/test_sample_watch.py",
)
TESTS = {
    "protocols": SUMS,
    "secagg": SUMS,
    "dp": PRIVACY,
    "dp/correlated": NOISE,
    "dp/mechanisms": NOISE,
    "dp/sample": SAMPLE,
    "fl": ROUNDS,
}
"""By folder, else by package: a test that reaches none of the functions costs a clean run and meets no mutant."""
TOO_LONG = (
    "fresh_process",
    "processes",
    "full_disk",
    "ten_thousand",
    "one_share_too_few",
    "import_the_compiler",
    "every_round_is_exact",
    "test_threads",
    "three_adaptive_rows",
    "one_coin_over_all_its_rows",
    "production_price",
    "stateful",
    "test_shamir",
)


def make(folders: list[str]) -> None:
    """Write every mutant of every function of `folders`, and set aside those that need no test."""
    from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants
    from mutmut.configuration import config

    MUTANTS.mkdir(exist_ok=True)
    config().only_mutate = [str(path) for folder in folders for path in Path(folder).glob("*.py")]
    copy_src_dir()
    copy_also_copy_files()
    create_mutants(os.cpu_count() or 1)
    (MUTANTS / "commit").write_text(commit()[:7])
    stillborn.write(MUTANTS)


def renew() -> None:
    """Take the tests as they are now; those in files that changed are to show anew what they reach."""
    files = [str(path) for path in Path("tests").rglob("*.py")]
    kept = set(filecmp.cmpfiles(".", MUTANTS, files, shallow=False)[0])
    shutil.copytree("tests", MUTANTS / "tests", dirs_exist_ok=True)
    reach = MUTANTS / "reach.json"
    if reach.is_file():
        known = json.loads(reach.read_text())
        still = {name: [test for test in of if test[1].split("::")[0] in kept] for name, of in known.items()}
        reach.write_text(json.dumps(still))


def meet(folders: list[str], again: bool) -> None:
    """Run the tests against them, in the folder, where the changed packages come first."""
    leave_out = " and ".join(f"not {name}" for name in TOO_LONG)
    chosen = [TESTS.get(folder) or TESTS[folder.partition("/")[0]] for folder in folders]
    tests = dict.fromkeys(test for those in chosen for test in those)
    command = [sys.executable, "-m", "pytest", *tests, "-q", "--tb=native", "-m", "not slow", "-k", leave_out]
    part = os.environ.get("SECAGG_MUTATION", "1")
    subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=MUTANTS,
        env=os.environ
        | {"SECAGG_MUTATION": part, "SECAGG_MUTATED": " ".join(folders), "SECAGG_AGAIN": "1" * again},
        check=True,
    )


def main() -> int:
    """0 if every mutant was met and every survivor is explained, else 1."""
    words = sys.argv[1:]
    verb = words.pop(0) if words[:1] in (["again"], ["page"]) else ""
    folders = words or sorted(page.rooms_of_code())
    if verb != "page":
        if not (MUTANTS / "aside.jsonl").is_file():
            make(folders)
        elif verb == "again":
            renew()
            (MUTANTS / "again.json").write_text(json.dumps(page.puzzles(MUTANTS, folders)))
        meet(folders, verb == "again")
    return page.write(MUTANTS, folders)


if __name__ == "__main__":
    raise SystemExit(main())
