"""Runs the tests against mutants: a plugin of pytest that `conftest.py` loads under SECAGG_MUTATION.

One process imports and collects the tests, runs them once to see which test reaches which function (a test that fails
then meets no mutant), and then forks for every mutant: the child switches it on and meets the tests that reach it until
one fails. Verdicts go to verdicts*.jsonl, a line each, so an interrupted run goes on where it was.
SECAGG_MUTATION=2/3 does the second third of the mutants; SECAGG_MUTATED names the folders; SECAGG_AGAIN meets once more
what is listed in again.json. What does not belong here: making the mutants (`tests.mutation` has mutmut do that).
"""

import gc
import json
import os
import resource
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, Phase, settings

EXAMPLES = 12
PHASES = (Phase.explicit, Phase.generate)  # a failure is enough, it need not be made small
QUICK = 0.2
BUDGET = 3.0  # processor seconds of tests that one mutant meets at most
NOTICED, SURVIVED, UNREACHED = 1, 0, 33
REACH = Path("reach.json")
Reach = dict[str, list[tuple[float, str]]]

settings.register_profile(
    "mutation",
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=PHASES,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutation")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Few examples, also where a test asks for many."""
    for item in items:
        if hasattr(item.cls, "fresh_process_clients"):  # the contract of secure sums
            item.cls.examples = 3
        function = getattr(item.function, "__func__", item.function)
        asked = getattr(function, "_hypothesis_internal_use_settings", None)
        if asked is not None:
            few = min(asked.max_examples, EXAMPLES)
            function._hypothesis_internal_use_settings = settings(asked, max_examples=few, phases=PHASES)


def passes(item: Any) -> bool:
    return all(report.outcome != "failed" for report in runtestprotocol(item, log=False, nextitem=None))


def switch(mutant: str) -> None:
    """Every mutated function runs as `mutant` says from here on; "" is the code as it is."""
    from mutmut.mutation import trampoline

    trampoline.get_mutant_under_test = lambda: mutant
    os.environ["MUTANT_UNDER_TEST"] = mutant


def forget() -> None:
    """Empty what the clean run has cached: a changed function is to compute again."""
    from protocols import codec

    codec._SCHEMAS.clear()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("secagg", "protocols", "dp", "fl"):
            for thing in vars(module).values():
                if hasattr(thing, "cache_clear"):
                    thing.cache_clear()


def too_long(*_: Any) -> None:
    """End a test of the clean run: no mutant has the time to meet it."""
    raise TimeoutError(f"more than {BUDGET} processor seconds")


def reached(items: list[Any], reach: Reach) -> Reach:
    """function -> (seconds, test) of every test that reaches it; `reach` is known already. A test that fails without
    any mutant (in this folder, because it reads the source, or because it takes longer than BUDGET) is named and meets
    none: more mutants survive, none is noticed by chance.
    """
    from mutmut.mutation import trampoline

    hits: set[str] = set()
    trampoline.record_trampoline_hit = lambda name, caller=None: hits.add(name)
    signal.signal(signal.SIGPROF, too_long)
    known = {test for tests in reach.values() for _, test in tests}
    switch("stats")
    for item in (item for item in items if item.nodeid not in known):
        hits.clear()
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, BUDGET)
        clean = passes(item)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if not clean:
            print(f"not clean, left out: {item.nodeid}", file=sys.stderr, flush=True)
        seconds = time.process_time() - start
        for name in hits if clean else ["not clean"]:
            reach.setdefault(name, []).append((round(seconds, 4), item.nodeid))
    return reach


def in_turn_by_case(tests: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """The first case of each test, then the second ones: cases of one test are alike."""
    cases, turns = Counter[str](), list[int]()
    for _, name in tests:
        cases[name.partition("[")[0]] += 1
        turns.append(cases[name.partition("[")[0]])
    return [test for _, test in sorted(zip(turns, tests, strict=True), key=lambda each: each[0])]


def in_order(reach: Reach, known: dict[str, Any]) -> Reach:
    """The same, those of tests that are `known`, in the order in which a mutant meets them: the quick ones, one case of
    each test after the other, narrow ones (of few functions) first; then narrow and broad ones (a whole session, say)
    in turn.
    """
    width = Counter(test for tests in reach.values() for _, test in tests)
    ordered: Reach = {}
    for name, tests in reach.items():
        narrow = sorted((t for t in tests if t[1] in known), key=lambda t: (width[t[1]], *t))
        quick, slow = ([t for t in narrow if (t[0] < QUICK) == fast] for fast in (True, False))
        quick = in_turn_by_case(quick)
        in_turn = [test for pair in zip(slow, reversed(slow), strict=True) for test in pair]
        ordered[name] = list({test[1]: test for test in (*quick, *in_turn)}.values())
    return ordered


def undecided() -> Iterator[str]:
    """The mutants that no run has decided yet, of this run's share; again: those too that are in again.json."""
    lines = [
        json.loads(line)
        for kept in [Path("aside.jsonl"), *sorted(Path().glob("verdicts*.jsonl"))]
        if kept.is_file()
        for line in kept.read_text().splitlines()
    ]
    again = json.loads(Path("again.json").read_text()) if os.environ.get("SECAGG_AGAIN") else []
    done = {line["mutant"] for line in lines} - {*again}
    part, _, parts = os.environ["SECAGG_MUTATION"].partition("/")
    folders = os.environ["SECAGG_MUTATED"].split()
    for meta in (meta for folder in folders for meta in sorted(Path(folder).glob("*.meta"))):
        for name in json.loads(meta.read_text())["exit_code_by_key"]:
            mine = not parts or zlib.crc32(name.encode()) % int(parts) == int(part) - 1
            if mine and name not in done:
                yield name


def meet(mutant: str, items: list[Any], seconds: float) -> None:
    """In a child: meet the tests, and exit with the verdict."""
    used = int(time.process_time()) + 1
    limit = used + int(10 + 8 * seconds)  # an endless loop ends here
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    signal.alarm(900)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for the rest of this process
    switch(mutant)
    forget()
    try:
        verdict = SURVIVED if all(passes(item) for item in items) else NOTICED
    except BaseException:  # whatever ends a test run ends this mutant
        verdict = NOTICED
    os._exit(verdict)


def verdict(mutant: str, known: dict[str, Any], reach: Reach) -> int:
    """Exit code of a child that met the mutant's tests, negative for a signal."""
    tests = reach.get(mutant.rsplit("__mutmut_", 1)[0], [])
    chosen, seconds = [], 0.0
    for cost, name in tests:
        if chosen and seconds + cost > BUDGET:
            continue
        chosen.append(known[name])
        seconds += cost
    if not chosen:
        return UNREACHED
    child = os.fork()
    if not child:
        meet(mutant, chosen, seconds)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def pytest_runtestloop(session: Any) -> bool:
    """Instead of running the tests once: one clean run, then one for each mutant."""
    if session.testsfailed:
        raise session.Interrupted("a file of tests cannot be imported here, and would meet no mutant")
    known = {item.nodeid: item for item in session.items}
    reach = reached(session.items, json.loads(REACH.read_text()) if REACH.is_file() else {})
    REACH.write_text(json.dumps(reach))
    reach = in_order(reach, known)
    switch("")
    gc.freeze()  # a child that collects what it shares with this process would copy it
    share = os.environ["SECAGG_MUTATION"].replace("/", "of")
    todo = list(dict.fromkeys(undecided()))
    with Path(f"verdicts{share}.jsonl").open("a", buffering=1) as kept:
        for n, mutant in enumerate(todo):
            kept.write(json.dumps({"mutant": mutant, "code": verdict(mutant, known, reach)}) + "\n")
            if n % 50 == 0:
                print(f"{n} of {len(todo)}", file=sys.stderr, flush=True)
    return True
